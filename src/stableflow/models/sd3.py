"""Stable Diffusion 3 and 3.5 over an unmodified diffusers StableDiffusion3Pipeline."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checkpoint import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.models.checks import (
    check_multiple,
    check_num_steps,
    check_open_to_interventions,
    check_scheduler,
    checked_text_length,
)
from stableflow.models.common import guide, join_words, tokens_of_words, vae_decode, vae_encode
from stableflow.models.guidance import branch_tensors, branches_for, scale_rows
from stableflow.models.hooks import AttentionObserver, Intervention, Layer, TokenLayout
from stableflow.models.prompts import warn_about_lost_text
from stableflow.models.times import TIMESTEPS, flow_times, shift_for
from stableflow.models.watch import projections_of, text_and_image, watch_streams
from stableflow.types import Images, Latents

DEFAULT_TEXT, LONGEST_TEXT = 256, 512  # T5 tokens; CLIP's own come before them
MAX_SHIFT = 1.16  # the pipeline's, where its scheduler shifts by size and does not say


class SD3Model:
    """A Stable Diffusion 3 or 3.5 pipeline as a velocity field.

    Image tokens come first, text after them, and there is no position encoding in attention. Layers that have a second,
    image-only attention (SD3.5-medium) show the keys and values of both. T5 may be absent.

    Args:
        pipeline: A StableDiffusion3Pipeline; it stays the caller's and nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: T5 tokens of every prompt; 256 when None, as in the pipeline.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: Any, *, name: str, max_sequence_length: int | None = None):
        check_scheduler(pipeline, name)
        self.pipeline = pipeline
        self.name = name
        self.max_sequence_length = checked_text_length(max_sequence_length, DEFAULT_TEXT, LONGEST_TEXT, "SD3")
        self._attachments = AttachmentStack(
            lambda: self.layers, lambda: check_open_to_interventions(self.pipeline.transformer)
        )

    @property
    def layers(self) -> list[Layer]:
        blocks = self.pipeline.transformer.transformer_blocks
        return [_layer(i, block) for i, block in enumerate(blocks)]

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.pipeline.transformer)

    @property
    def device(self) -> torch.device:
        return execution_device(self.pipeline)

    @property
    def pixel_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * self.pipeline.patch_size

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.pipeline.default_sample_size * self.pipeline.vae_scale_factor
        return side, side

    @property
    def default_guidance_scale(self) -> float:
        return 7.0

    @property
    def modifications(self) -> tuple[str, ...]:
        return modifications_of(self.pipeline.transformer)

    def checkpoint_hash(self) -> str:
        return checkpoint_digest(self.pipeline.transformer)

    def check_size(self, height: int, width: int) -> None:
        check_multiple(self.name, height, width, self.pixel_multiple)
        longest = self.pipeline.transformer.config.pos_embed_max_size * self.pixel_multiple
        if max(height, width) > longest:
            raise InputError(f"{self.name!r} has positions up to {longest} pixels a side, got {height}x{width}.")

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        scale = self.pipeline.vae_scale_factor
        return self.pipeline.transformer.config.in_channels, height // scale, width // scale

    def kv_bytes(self, height: int, width: int) -> int:
        transformer = self.pipeline.transformer
        self.check_size(height, width)
        tokens = (height // self.pixel_multiple) * (width // self.pixel_multiple)
        attentions = 2 if transformer.config.dual_attention_layers else 1
        branches = 2
        return 2 * branches * attentions * tokens * transformer.inner_dim * self.dtype.itemsize

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        pipeline = self.pipeline
        warn_about_lost_text(pipeline.tokenizer, prompts, pipeline.tokenizer_max_length)
        if pipeline.text_encoder_3 is not None:
            warn_about_lost_text(pipeline.tokenizer_3, prompts, self.max_sequence_length)
        embeds, negative, pooled, negative_pooled = pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, max_sequence_length=self.max_sequence_length
        )
        tensors = {
            "encoder_hidden_states": embeds,
            "pooled_projections": pooled,
            "negative_encoder_hidden_states": negative,
            "negative_pooled_projections": negative_pooled,
        }
        return Conditioning(tuple(prompts), tensors)

    def words(self, prompt: str) -> tuple[Word, ...]:
        """The words with their tokens of CLIP, and of T5 after those."""
        pipeline, clip_tokens = self.pipeline, self.pipeline.tokenizer_max_length
        encoders = [tokens_of_words(pipeline.tokenizer, prompt, clip_tokens)]
        if pipeline.text_encoder_3 is not None:
            t5 = tokens_of_words(pipeline.tokenizer_3, prompt, self.max_sequence_length, first=-clip_tokens)
            encoders.append(t5)
        return join_words(prompt, *encoders)

    @torch.no_grad()
    def encode_image(self, images: Images) -> Latents:
        return vae_encode(self.pipeline.vae, images, self.device)

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        return vae_decode(self.pipeline.vae, latents, self.device)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        check_num_steps(num_steps)
        self.check_size(height, width)
        scheduler = self.pipeline.scheduler
        tokens = (height // self.pixel_multiple) * (width // self.pixel_multiple)
        by_size = scheduler.config.get("use_dynamic_shifting", False)
        return flow_times(scheduler, num_steps, mu=shift_for(scheduler, tokens, MAX_SHIFT) if by_size else None)

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        batch = len(latents)
        scale = scale_rows(guidance_scale, self.default_guidance_scale, batch, self.device)
        branches = branches_for(scale, self._attachments.every_branch)[::-1]  # stacked as the pipeline does
        tensors = [branch_tensors(conditioning, branch) for branch in branches]
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        layout = self._layout(latents, tensors[0])
        with self._attachments.forward(t, layout, batch, branches=branches):
            output = self.pipeline.transformer(
                hidden_states=torch.cat([latents.to(self.device, self.dtype)] * len(branches)),
                timestep=timestep.expand(batch * len(branches)),
                return_dict=False,
                **{name: torch.cat([own[name] for own in tensors]) for name in tensors[0]},
            )[0]
        return guide(dict(zip(branches, output.chunk(len(branches)))), scale)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _layout(self, latents: Latents, tensors: Mapping[str, Tensor]) -> TokenLayout:
        patch = self.pipeline.patch_size
        rows, columns = latents.shape[-2] // patch, latents.shape[-1] // patch
        return TokenLayout(
            image_rows=rows,
            image_columns=columns,
            text_tokens=tensors["encoder_hidden_states"].shape[1],
            image_start={"double": 0},
            joint_start={"image": 0, "text": rows * columns},
        )


def _layer(index: int, block: Any) -> Layer:
    projections = partial(projections_of, _attentions(block), index)
    return Layer(index, "double", block, projections, text_and_image, partial(_watch, block.attn))


def _attentions(block: Any) -> list[Any]:
    return [block.attn] if block.attn2 is None else [block.attn, block.attn2]


def _watch(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Watch the joint attention: image, then text, no positions. A second one would show the image alone."""

    def join(streams: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Tensor:
        return torch.cat([_tokens_first(tokens, attention.heads) for tokens in streams], dim=1)

    return watch_streams(attention, observer, streams=["image", "text"], join=join, mask=lambda kwargs: None)


def _tokens_first(features: Tensor, heads: int) -> Tensor:
    """SD3.5's leave their norm heads first; SD3 has no norm, so its leave the projection undivided."""
    if features.ndim == 4:
        return rearrange(features, "batch heads tokens head_dim -> batch tokens heads head_dim")
    return rearrange(features, "batch tokens (heads head_dim) -> batch tokens heads head_dim", heads=heads)
