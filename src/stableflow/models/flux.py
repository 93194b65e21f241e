"""FLUX.1: dev, schnell, Kontext without a reference picture, and every checkpoint in that layout."""

from collections.abc import Mapping
from typing import Any

from stableflow.models.family import Blocks, Family, Pass, joint_inputs, named
from stableflow.models.following import positioned_call
from stableflow.models.guidance import embedded
from stableflow.models.prompts import Reader


def readers(pipeline: Any, length: int) -> list[Reader]:
    """T5 for the joint text, CLIP for the pooled one."""
    clip = Reader(pipeline.tokenizer, pipeline.tokenizer_max_length, joint=False)
    return [Reader(pipeline.tokenizer_2, length), clip]


def inputs(given: Pass) -> Mapping[str, Any]:
    return {**joint_inputs(given), "guidance": given.guidance}


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
    call=positioned_call,
)
