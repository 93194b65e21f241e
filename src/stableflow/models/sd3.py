"""Stable Diffusion 3 and 3.5: image tokens first, text after them, no position encoding in attention; T5 may be absent.

Layers that have a second, image-only attention (3.5-medium) show the keys and values of both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.family import Blocks, Family, Pass, Sizes
from stableflow.models.guidance import classifier_free
from stableflow.models.hooks import AttentionObserver
from stableflow.models.outside import Outside
from stableflow.models.prompts import Reader
from stableflow.models.times import flow_times, shift_for
from stableflow.models.watch import watch_streams

MAX_SHIFT = 1.16  # the pipeline's, where its scheduler shifts by size and does not say


def readers(pipeline: Any, length: int) -> list[Reader]:
    """CLIP, whose tokens come first, and T5, whose limit `length` is."""
    clip_tokens = pipeline.tokenizer_max_length
    t5 = [] if pipeline.text_encoder_3 is None else [Reader(pipeline.tokenizer_3, length, first=-clip_tokens)]
    return [Reader(pipeline.tokenizer, clip_tokens), *t5]


def encode(pipeline: Any, prompts: list[str], length: int, device: torch.device) -> Mapping[str, Tensor]:
    text, negative, pooled, negative_pooled = pipeline.encode_prompt(
        prompts, None, None, device=device, max_sequence_length=length
    )
    return {
        "encoder_hidden_states": text,
        "pooled_projections": pooled,
        "negative_encoder_hidden_states": negative,
        "negative_pooled_projections": negative_pooled,
    }


def inputs(given: Pass) -> Mapping[str, Any]:
    return {"hidden_states": given.latents, "timestep": given.timestep, **given.tensors}


def attentions(block: Any) -> list[Any]:
    return [block.attn] if block.attn2 is None else [block.attn, block.attn2]


def watch(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Watch the joint attention: image, then text, no positions. A second one would show the image alone."""

    def join(streams: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Tensor:
        return torch.cat([_tokens_first(tokens, attention.heads) for tokens in streams], dim=1)

    return watch_streams(attention, observer, streams=["image", "text"], join=join, mask=lambda kwargs: None)


def _tokens_first(features: Tensor, heads: int) -> Tensor:
    """SD3.5's leave their norm heads first; SD3 has no norm, so its leave the projection undivided."""
    if features.ndim == 4:
        return rearrange(features, "batch heads tokens head_dim -> batch tokens heads head_dim")
    return rearrange(features, "batch tokens (heads head_dim) -> batch tokens heads head_dim", heads=heads)


def placed(attention: Any, keys: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    """SD3.5's QK norm; SD3 has none."""
    return keys if attention.norm_k is None else attention.norm_k(keys)


def times(scheduler: Any, num_steps: int, image_tokens: int) -> TimeGrid:
    by_size = scheduler.config.get("use_dynamic_shifting", False)
    return flow_times(scheduler, num_steps, mu=shift_for(scheduler, image_tokens, MAX_SHIFT) if by_size else None)


def sizes(pipeline: Any) -> Sizes:
    pixel, patch, config = pipeline.vae_scale_factor, pipeline.patch_size, pipeline.transformer.config
    return Sizes(
        pixel,
        patch,
        channels=config.in_channels,
        side=pipeline.default_sample_size * pixel,
        kv=pipeline.transformer.inner_dim * (2 if config.dual_attention_layers else 1),
        longest=config.pos_embed_max_size * pixel * patch,
    )


SD3 = Family(
    "SD3",
    pipelines=("StableDiffusion3Pipeline",),
    blocks=(
        Blocks(
            "double",
            "transformer_blocks",
            attentions=attentions,
            watch=watch,
            rotary=False,
            outside=Outside(lambda kwargs, pick: kwargs, placed),
        ),
    ),
    order=("image", "text"),
    text=(256, 512),
    guidance=classifier_free(7.0),
    stacked=("unconditional", "conditional"),
    readers=readers,
    encode=encode,
    inputs=inputs,
    unpack=lambda output, rows: output,
    times=times,
    sizes=sizes,
)
