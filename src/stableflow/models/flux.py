"""FLUX.1 (dev, schnell and every checkpoint in that layout) over an unmodified diffusers FluxPipeline."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from diffusers import FluxKontextPipeline, FluxPipeline
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checkpoint import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.models.checks import check_multiple, check_open_to_interventions, check_scheduler, checked_text_length
from stableflow.models.guidance import scale_rows
from stableflow.models.hooks import Intervention, Kind, Layer, TokenLayout
from stableflow.models.latents import PATCH, default_side, grid_positions, pack, unpack, vae_decode, vae_encode
from stableflow.models.prompts import split_words, warn_about_lost_text
from stableflow.models.times import TIMESTEPS, even_sigmas, flow_times, shift_for
from stableflow.models.watch import projections_of, text_and_image, watch_text_first
from stableflow.types import Images, Latents

LONGEST_TEXT = 512  # tokens that FLUX's text encoder was trained with


class FluxModel:
    """A FLUX.1 pipeline as a velocity field.

    Args:
        pipeline: Stays the caller's; nothing in it is replaced. Kontext runs without a reference picture.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Text tokens of every prompt; the tokenizer's own limit when None.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(
        self, pipeline: FluxPipeline | FluxKontextPipeline, *, name: str, max_sequence_length: int | None = None
    ):
        check_scheduler(pipeline, name)
        self.pipeline: Any = pipeline
        self.name = name
        longest = min(LONGEST_TEXT, pipeline.tokenizer_2.model_max_length)
        self.max_sequence_length = checked_text_length(max_sequence_length, longest, LONGEST_TEXT, "FLUX")
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
        return compute_dtype(self.pipeline.transformer)

    @property
    def device(self) -> torch.device:
        return execution_device(self.pipeline)

    @property
    def pixel_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * PATCH

    @property
    def default_size(self) -> tuple[int, int]:
        side = default_side(self.pipeline.vae)
        return side, side

    @property
    def default_guidance_scale(self) -> float | None:
        return 3.5 if self.pipeline.transformer.config.guidance_embeds else None

    def checkpoint_hash(self) -> str:
        return checkpoint_digest(self.pipeline.transformer)

    @property
    def modifications(self) -> tuple[str, ...]:
        return modifications_of(self.pipeline.transformer)

    def check_size(self, height: int, width: int) -> None:
        check_multiple(self.name, height, width, self.pixel_multiple)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        scale = self.pipeline.vae_scale_factor
        return self.pipeline.transformer.config.in_channels // PATCH**2, height // scale, width // scale

    def kv_bytes(self, height: int, width: int) -> int:
        _, latent_height, latent_width = self.latent_shape(height, width)
        tokens = (latent_height // PATCH) * (latent_width // PATCH)
        return 2 * tokens * self.pipeline.transformer.inner_dim * self.dtype.itemsize

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        for tokenizer, limit in self._tokenizers():
            warn_about_lost_text(tokenizer, prompts, limit)
        embeds, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.max_sequence_length
        )
        return Conditioning(tuple(prompts), {"encoder_hidden_states": embeds, "pooled_projections": pooled})

    def words(self, prompt: str) -> tuple[Word, ...]:
        return split_words(self.pipeline.tokenizer_2, prompt, self.max_sequence_length)  # joint text is T5's alone

    @torch.no_grad()
    def encode_image(self, images: Images) -> Latents:
        return vae_encode(self.pipeline.vae, images, self.device)

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        return vae_decode(self.pipeline.vae, latents, self.device)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        _, latent_height, latent_width = self.latent_shape(height, width)
        scheduler = self.pipeline.scheduler
        mu = shift_for(scheduler, (latent_height // PATCH) * (latent_width // PATCH))
        return flow_times(scheduler, num_steps, mu=mu, sigmas=even_sigmas(num_steps))

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        batch, _, latent_height, latent_width = latents.shape
        layout = self._layout(latent_height, latent_width, conditioning)
        device, dtype = self.device, self.dtype
        timestep = torch.tensor(t, dtype=torch.float32, device=device) * TIMESTEPS
        with self._attachments.forward(t, layout, batch), self.pipeline.transformer.cache_context("cond"):
            tokens = self.pipeline.transformer(
                hidden_states=pack(latents).to(device, dtype),
                timestep=timestep.expand(batch).to(dtype) / TIMESTEPS,
                guidance=self._guidance(guidance_scale, batch),
                txt_ids=torch.zeros(layout.text_tokens, 3, device=device, dtype=dtype),
                img_ids=grid_positions(layout).to(device, dtype),
                return_dict=False,
                **conditioning.tensors,
            )[0]
        return unpack(tokens, layout.image_rows).to(torch.float32)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _guidance(self, scale: Guidance, batch: int) -> Tensor | None:
        if not self.pipeline.transformer.config.guidance_embeds:
            return None
        return scale_rows(scale, self.default_guidance_scale, batch, self.device)

    def _layout(self, latent_height: int, latent_width: int, conditioning: Conditioning) -> TokenLayout:
        text_tokens = conditioning.tensors["encoder_hidden_states"].shape[1]
        return TokenLayout(
            image_rows=latent_height // PATCH,
            image_columns=latent_width // PATCH,
            text_tokens=text_tokens,
            image_start={"double": 0, "single": text_tokens},
            joint_start={"text": 0, "image": text_tokens},
        )

    def _tokenizers(self) -> list[tuple[Any, int]]:
        pipeline = self.pipeline
        return [
            (pipeline.tokenizer_2, self.max_sequence_length),
            (pipeline.tokenizer, pipeline.tokenizer_max_length),
        ]


def _layer(index: int, kind: Kind, block: Any) -> Layer:
    projections = partial(projections_of, [block.attn], index)
    return Layer(index, kind, block, projections, text_and_image, partial(watch_text_first, block.attn))
