"""FLUX.1: dev, schnell, Kontext with or without a reference picture, and every checkpoint in that layout."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from stableflow.errors import InputError
from stableflow.models.family import Blocks, Family, Pass, joint_inputs, named
from stableflow.models.following import positioned_call
from stableflow.models.guidance import embedded
from stableflow.models.latents import PATCH, VAE, pack, positions_of
from stableflow.models.prompts import Reader
from stableflow.models.reference import with_reference


def readers(pipeline: Any, length: int) -> list[Reader]:
    """T5 for the joint text, CLIP for the pooled one."""
    clip = Reader(pipeline.tokenizer, pipeline.tokenizer_max_length, joint=False)
    return [Reader(pipeline.tokenizer_2, length), clip]


def inputs(given: Pass) -> Mapping[str, Any]:
    return with_reference({**joint_inputs(given), "guidance": given.guidance})


def refer(pipeline: Any, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One picture: its latents in tokens, with a first position of 1."""
    if type(pipeline).__name__ != "FluxKontextPipeline":
        raise InputError(
            f"A {type(pipeline).__name__} was not trained with reference pictures; FLUX.1-Kontext was (`-m kontext`). "
            "Edit without reference=."
        )
    if len(pictures) != 1:
        raise InputError(f"FLUX.1-Kontext takes one reference picture, and {len(pictures)} were given.")
    latents = VAE.encode(pipeline.vae, pictures[0])
    ids = positions_of(latents.shape[-2] // PATCH, latents.shape[-1] // PATCH)
    ids[:, 0] = 1
    return pack(latents), ids[None]


FLUX = Family(
    "FLUX",
    pipelines=("FluxPipeline", "FluxKontextPipeline"),
    blocks=(Blocks("double", "transformer_blocks"), Blocks("single", "single_transformer_blocks")),
    text=(512, 512),
    text_within="tokenizer_2",
    guidance=embedded(3.5),
    readers=readers,
    encode=named("encoder_hidden_states", "pooled_projections", None),
    inputs=inputs,
    refer=refer,
    call=positioned_call,
)
