"""Z-Image over an unmodified diffusers ZImagePipeline."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance
from stableflow.models.checkpoint import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.models.checks import (
    check_multiple,
    check_num_steps,
    check_open_to_interventions,
    check_scheduler,
    checked_text_length,
)
from stableflow.models.common import vae_decode, vae_encode
from stableflow.models.guidance import UNGUIDED, branch_tensors, branches_for, scale_rows
from stableflow.models.hooks import Branch, Intervention, Layer, TokenLayout
from stableflow.models.latents import PATCH, default_side
from stableflow.models.prompts import warn_about_lost_text
from stableflow.models.times import TIMESTEPS, flow_times, shift_for
from stableflow.models.watch import projections_of
from stableflow.types import Images, Latents

LONGEST_TEXT = 512
CAPTION_MULTIPLE = 32  # the transformer pads every caption and every image to this


class ZImageModel:
    """A Z-Image pipeline as a velocity field.

    All layers are single, image tokens first; the refiners before them, which see the image or the text alone, are not
    counted as layers. Captions keep their own length, and image positions move with it: keys are met before that.

    A guidance scale here is the pipeline's plus 1, so that 1 means none as in every other family: the pipeline computes
    v_cond + g (v_cond - v_uncond) from its `guidance_scale` g. Distilled checkpoints (Turbo) want 1 here, 0 there.

    Args:
        pipeline: A ZImagePipeline; it stays the caller's and nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Most text tokens of a prompt, chat template included; 512 when None.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: Any, *, name: str, max_sequence_length: int | None = None):
        check_scheduler(pipeline, name)
        self.pipeline = pipeline
        self.name = name
        self.max_sequence_length = checked_text_length(max_sequence_length, LONGEST_TEXT, LONGEST_TEXT, "Z-Image")
        self._attachments = AttachmentStack(
            lambda: self.layers, lambda: check_open_to_interventions(self.pipeline.transformer)
        )

    @property
    def layers(self) -> list[Layer]:
        return [
            Layer(i, "single", block, partial(projections_of, [block.attention], i), _identity)
            for i, block in enumerate(self.pipeline.transformer.layers)
        ]

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
        return 6.0

    @property
    def modifications(self) -> tuple[str, ...]:
        return modifications_of(self.pipeline.transformer)

    def checkpoint_hash(self) -> str:
        return checkpoint_digest(self.pipeline.transformer)

    def check_size(self, height: int, width: int) -> None:
        check_multiple(self.name, height, width, self.pixel_multiple)
        longest = min(self.pipeline.transformer.config.axes_lens[1:]) * self.pixel_multiple
        if max(height, width) > longest:
            raise InputError(f"{self.name!r} has positions up to {longest} pixels a side, got {height}x{width}.")

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        scale = self.pipeline.vae_scale_factor
        return self.pipeline.transformer.config.in_channels, height // scale, width // scale

    def kv_bytes(self, height: int, width: int) -> int:
        self.check_size(height, width)
        tokens = (height // self.pixel_multiple) * (width // self.pixel_multiple)
        branches = 2
        return 2 * branches * tokens * self.pipeline.transformer.config.dim * self.dtype.itemsize

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        pipeline = self.pipeline
        template = pipeline.tokenizer.apply_chat_template(
            [{"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        room = self.max_sequence_length - len(pipeline.tokenizer(template).input_ids)
        warn_about_lost_text(pipeline.tokenizer, prompts, room)
        captions, negative = pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.max_sequence_length
        )
        tensors = {
            "caption": pad_sequence(captions, batch_first=True),
            "caption_mask": _mask(captions),
            "negative_caption": pad_sequence(negative, batch_first=True),
            "negative_caption_mask": _mask(negative),
        }
        return Conditioning(tuple(prompts), tensors)

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
        mu = shift_for(scheduler, (height // self.pixel_multiple) * (width // self.pixel_multiple))
        sigmas = torch.linspace(1.0, 1 / num_steps, num_steps).tolist()  # in float32, unlike the other pipelines
        return flow_times(scheduler, num_steps, mu=mu, sigmas=sigmas)

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        batch, _, latent_height, latent_width = latents.shape
        scale = scale_rows(guidance_scale, self.default_guidance_scale, batch, self.device)
        branches = branches_for(scale, self._attachments.every_branch)
        captions = [caption for branch in branches for caption in _captions(conditioning, branch)]
        layout = TokenLayout(
            image_rows=latent_height // PATCH,
            image_columns=latent_width // PATCH,
            text_tokens=max(_padded_length(len(caption)) for caption in captions),
            image_start={"single": 0},
        )
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        images = latents.to(self.device, self.dtype).repeat(len(branches), 1, 1, 1)[:, :, None]
        with self._attachments.forward(t, layout, batch, branches=branches):
            output = self.pipeline.transformer(
                list(images.unbind()),
                ((TIMESTEPS - timestep) / TIMESTEPS).expand(batch * len(branches)),
                captions,
                return_dict=False,
            )[0]
        velocities = -torch.stack(output)[:, :, 0].float()  # the transformer predicts image - noise
        return _guide(dict(zip(branches, velocities.chunk(len(branches)))), scale)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)


def _mask(captions: Sequence[Float[Tensor, "_ dim"]]) -> Tensor:
    ones = [torch.ones(len(caption), dtype=torch.long, device=caption.device) for caption in captions]
    return pad_sequence(ones, batch_first=True)


def _captions(conditioning: Conditioning, branch: Branch) -> list[Float[Tensor, "_ dim"]]:
    """Return every row's caption at its own length."""
    tensors = branch_tensors(conditioning, branch)
    return [row[mask.bool()] for row, mask in zip(tensors["caption"], tensors["caption_mask"])]


def _padded_length(length: int) -> int:
    return -(-length // CAPTION_MULTIPLE) * CAPTION_MULTIPLE


def _guide(velocities: Mapping[Branch, Latents], scale: Float[Tensor, " batch"]) -> Latents:
    """v_cond + (scale - 1) (v_cond - v_uncond): the same guidance as elsewhere, summed in the pipeline's order."""
    conditional = velocities["conditional"]
    if "unconditional" not in velocities:
        return conditional
    rows = scale.reshape(-1, 1, 1, 1)
    guided = conditional + (rows - 1) * (conditional - velocities["unconditional"])
    return torch.where(rows > UNGUIDED, guided, conditional)


def _identity(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The joint stream, the first argument by position."""
    return args[0]
