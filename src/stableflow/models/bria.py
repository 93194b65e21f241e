"""Bria (3.2 and checkpoints in that layout) over an unmodified diffusers BriaPipeline."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checkpoint import checkpoint_digest, execution_device, modifications_of
from stableflow.models.checks import (
    check_multiple,
    check_num_steps,
    check_open_to_interventions,
    check_scheduler,
    checked_text_length,
)
from stableflow.models.common import even_sigmas, guide, split_words, unpack, vae_decode, vae_encode
from stableflow.models.guidance import branch_tensors, branches_for, scale_rows
from stableflow.models.hooks import Intervention, Kind, Layer, TokenLayout
from stableflow.models.latents import PATCH, grid_positions, pack
from stableflow.models.prompts import warn_about_lost_text
from stableflow.models.times import TIMESTEPS, flow_times, shift_for
from stableflow.models.watch import projections_of, text_and_image, watch_text_first
from stableflow.types import Images, Latents

DEFAULT_TEXT, LONGEST_TEXT = 128, 512


class BriaModel:
    """A Bria pipeline as a velocity field.

    FLUX's two kinds of layers; T5 alone, its embeddings padded with zeros and not masked. Classifier-free guidance in
    one pass, away from zeros: an empty negative prompt is not encoded.

    Args:
        pipeline: A BriaPipeline; it stays the caller's and nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Text tokens of every prompt; 128 when None, as in the pipeline.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: Any, *, name: str, max_sequence_length: int | None = None):
        check_scheduler(pipeline, name)
        self.pipeline = pipeline
        self.name = name
        self.max_sequence_length = checked_text_length(max_sequence_length, DEFAULT_TEXT, LONGEST_TEXT, "Bria")
        self._attachments = AttachmentStack(
            lambda: self.layers, lambda: check_open_to_interventions(self.pipeline.transformer)
        )

    @property
    def layers(self) -> list[Layer]:
        transformer = self.pipeline.transformer
        double = [_layer(i, "double", block) for i, block in enumerate(transformer.transformer_blocks)]
        single = enumerate(transformer.single_transformer_blocks, start=len(double))
        return double + [_layer(i, "single", block) for i, block in single]

    @property
    def dtype(self) -> torch.dtype:
        return self.pipeline.transformer.dtype

    @property
    def device(self) -> torch.device:
        return execution_device(self.pipeline)

    @property
    def pixel_multiple(self) -> int:
        return self.pipeline.vae_scale_factor  # counts the patches, unlike in the other pipelines

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.pipeline.default_sample_size * self.pipeline.vae_scale_factor
        return side, side

    @property
    def default_guidance_scale(self) -> float:
        return 5.0

    @property
    def modifications(self) -> tuple[str, ...]:
        return modifications_of(self.pipeline.transformer)

    def checkpoint_hash(self) -> str:
        return checkpoint_digest(self.pipeline.transformer)

    def check_size(self, height: int, width: int) -> None:
        check_multiple(self.name, height, width, self.pixel_multiple)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        scale = self.pixel_multiple // PATCH
        return self.pipeline.transformer.config.in_channels // PATCH**2, height // scale, width // scale

    def kv_bytes(self, height: int, width: int) -> int:
        branches = 2
        return 2 * branches * self._tokens(height, width) * self.pipeline.transformer.inner_dim * self.dtype.itemsize

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        warn_about_lost_text(self.pipeline.tokenizer, prompts, self.max_sequence_length)
        embeds, negative, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.max_sequence_length
        )
        tensors = {"encoder_hidden_states": embeds, "negative_encoder_hidden_states": negative}
        return Conditioning(tuple(prompts), tensors)

    def words(self, prompt: str) -> tuple[Word, ...]:
        return split_words(self.pipeline.tokenizer, prompt, self.max_sequence_length)

    @torch.no_grad()
    def encode_image(self, images: Images) -> Latents:
        return vae_encode(self.pipeline.vae, images, self.device)

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        return vae_decode(self.pipeline.vae, latents, self.device)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        # Late: the pipeline's module imports its text encoder.
        from diffusers.pipelines.bria.pipeline_bria import get_original_sigmas

        check_num_steps(num_steps)
        scheduler, tokens = self.pipeline.scheduler, self._tokens(height, width)
        if scheduler.config.get("use_dynamic_shifting", False):
            return flow_times(scheduler, num_steps, mu=shift_for(scheduler, tokens), sigmas=even_sigmas(num_steps))
        trained = scheduler.config.num_train_timesteps
        return flow_times(scheduler, num_steps, sigmas=get_original_sigmas(trained, num_steps).tolist())

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        batch = len(latents)
        scale = scale_rows(guidance_scale, self.default_guidance_scale, batch, self.device)
        branches = branches_for(scale, self._attachments.every_branch)[::-1]  # stacked as the pipeline does
        tensors = [branch_tensors(conditioning, branch) for branch in branches]
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        layout = _layout(latents, tensors[0])
        with self._attachments.forward(t, layout, batch, branches=branches):
            tokens = self.pipeline.transformer(
                hidden_states=torch.cat([pack(latents).to(self.device, self.dtype)] * len(branches)),
                timestep=timestep.expand(batch * len(branches)),
                txt_ids=torch.zeros(layout.text_tokens, 3, device=self.device),
                img_ids=grid_positions(layout).to(self.device, self.dtype),
                return_dict=False,
                **{name: torch.cat([own[name] for own in tensors]) for name in tensors[0]},
            )[0]
        velocities = unpack(tokens, layout.image_rows).chunk(len(branches))
        return guide(dict(zip(branches, velocities)), scale)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _tokens(self, height: int, width: int) -> int:
        self.check_size(height, width)
        return (height // self.pixel_multiple) * (width // self.pixel_multiple)


def _layout(latents: Latents, tensors: Mapping[str, Tensor]) -> TokenLayout:
    text_tokens = tensors["encoder_hidden_states"].shape[1]
    return TokenLayout(
        image_rows=latents.shape[-2] // PATCH,
        image_columns=latents.shape[-1] // PATCH,
        text_tokens=text_tokens,
        image_start={"double": 0, "single": text_tokens},
        joint_start={"text": 0, "image": text_tokens},
    )


def _layer(index: int, kind: Kind, block: Any) -> Layer:
    projections = partial(projections_of, [block.attn], index)
    return Layer(index, kind, block, projections, text_and_image, partial(watch_text_first, block.attn))
