"""Chroma over an unmodified diffusers ChromaPipeline."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checkpoint import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.models.checks import check_multiple, check_open_to_interventions, check_scheduler, checked_text_length
from stableflow.models.common import even_sigmas, guide, split_words, unpack, vae_decode, vae_encode
from stableflow.models.guidance import branch_tensors, branches_for, scale_rows
from stableflow.models.hooks import Branch, Intervention, Kind, Layer, TokenLayout
from stableflow.models.latents import PATCH, default_side, grid_positions, pack
from stableflow.models.prompts import warn_about_lost_text
from stableflow.models.times import TIMESTEPS, flow_times, shift_for
from stableflow.models.watch import joint_stream, projections_of, text_and_image, watch_text_first
from stableflow.types import Images, Latents

LONGEST_TEXT = 512


class ChromaModel:
    """A Chroma pipeline as a velocity field.

    FLUX's two kinds of layers without its pooled text; T5 alone, with a mask over padding, and classifier-free guidance
    in two passes.

    Args:
        pipeline: A ChromaPipeline; it stays the caller's and nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Text tokens of every prompt; 512 when None.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: Any, *, name: str, max_sequence_length: int | None = None):
        check_scheduler(pipeline, name)
        self.pipeline = pipeline
        self.name = name
        longest = min(LONGEST_TEXT, pipeline.tokenizer.model_max_length)
        self.max_sequence_length = checked_text_length(max_sequence_length, longest, LONGEST_TEXT, "Chroma")
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
        scale = self.pipeline.vae_scale_factor
        return self.pipeline.transformer.config.in_channels // PATCH**2, height // scale, width // scale

    def kv_bytes(self, height: int, width: int) -> int:
        self.check_size(height, width)
        tokens = (height // self.pixel_multiple) * (width // self.pixel_multiple)
        branches = 2
        return 2 * branches * tokens * self.pipeline.transformer.inner_dim * self.dtype.itemsize

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        warn_about_lost_text(self.pipeline.tokenizer, prompts, self.max_sequence_length)
        embeds, _, mask, negative, _, negative_mask = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.max_sequence_length
        )
        tensors = {
            "encoder_hidden_states": embeds,
            "attention_mask": mask,
            "negative_encoder_hidden_states": negative,
            "negative_attention_mask": negative_mask,
        }
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
        self.check_size(height, width)
        scheduler = self.pipeline.scheduler
        mu = shift_for(scheduler, (height // self.pixel_multiple) * (width // self.pixel_multiple))
        return flow_times(scheduler, num_steps, mu=mu, sigmas=even_sigmas(num_steps))

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        scale = scale_rows(guidance_scale, self.default_guidance_scale, len(latents), self.device)
        branches = branches_for(scale, self._attachments.every_branch)
        return guide({branch: self._pass(latents, t, conditioning, branch) for branch in branches}, scale)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _pass(self, latents: Latents, t: float, conditioning: Conditioning, branch: Branch) -> Latents:
        batch, _, latent_height, latent_width = latents.shape
        tensors = branch_tensors(conditioning, branch)
        text, mask = tensors["encoder_hidden_states"], tensors["attention_mask"]
        layout = _layout(latent_height // PATCH, latent_width // PATCH, text.shape[1])
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        image_mask = torch.ones(batch, layout.image_tokens, dtype=torch.bool, device=self.device)
        with self._attachments.forward(t, layout, batch, branches=(branch,)):
            tokens = self.pipeline.transformer(
                hidden_states=pack(latents).to(self.device, self.dtype),
                timestep=timestep.expand(batch).to(self.dtype) / TIMESTEPS,
                encoder_hidden_states=text,
                txt_ids=torch.zeros(layout.text_tokens, 3, device=self.device, dtype=self.dtype),
                img_ids=grid_positions(layout).to(self.device, self.dtype),
                attention_mask=torch.cat([mask, image_mask], dim=1),
                return_dict=False,
            )[0]
        return unpack(tokens, layout.image_rows)


def _layout(rows: int, columns: int, text_tokens: int) -> TokenLayout:
    return TokenLayout(
        image_rows=rows,
        image_columns=columns,
        text_tokens=text_tokens,
        image_start={"double": 0, "single": text_tokens},
        joint_start={"text": 0, "image": text_tokens},
    )


def _layer(index: int, kind: Kind, block: Any) -> Layer:
    identity = text_and_image if kind == "double" else joint_stream
    projections = partial(projections_of, [block.attn], index)
    return Layer(index, kind, block, projections, identity, partial(watch_text_first, block.attn))
