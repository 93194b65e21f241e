"""Chroma: FLUX's two kinds of layers without its pooled text; T5 alone, its padding masked, guided in two passes."""

from collections.abc import Mapping
from typing import Any

import torch

from stableflow.models.family import Blocks, Family, Pass, joint_inputs, named
from stableflow.models.guidance import classifier_free
from stableflow.models.outside import Outside, Pick, rotary_picked, rotary_placed
from stableflow.models.prompts import Reader
from stableflow.models.watch import joint_stream

NAMES = ("encoder_hidden_states", None, "attention_mask")


def inputs(given: Pass) -> Mapping[str, Any]:
    text, shape = given.tensors["attention_mask"], (len(given.latents), given.layout.image_tokens)
    mask = torch.cat([text, torch.ones(shape, dtype=torch.bool, device=text.device)], dim=1)
    return {**joint_inputs(given), "attention_mask": mask}


def picked(kwargs: Mapping[str, Any], pick: Pick) -> Mapping[str, Any]:
    """FLUX's positions, and a mask of queries by keys."""
    mask = pick(pick(kwargs["attention_mask"], dim=-1), dim=-2)
    return {**rotary_picked(kwargs, pick), "attention_mask": mask}


OUTSIDE = Outside(picked, rotary_placed)


CHROMA = Family(
    "Chroma",
    pipelines=("ChromaPipeline",),
    blocks=(
        Blocks("double", "transformer_blocks", outside=OUTSIDE),
        Blocks("single", "single_transformer_blocks", identity=joint_stream, outside=OUTSIDE),
    ),
    text=(512, 512),
    text_within="tokenizer",
    guidance=classifier_free(5.0),
    readers=lambda pipeline, length: [Reader(pipeline.tokenizer, length)],
    encode=named(*NAMES, *[name and f"negative_{name}" for name in NAMES]),
    inputs=inputs,
)
