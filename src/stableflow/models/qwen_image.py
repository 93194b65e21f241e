"""Qwen-Image over an unmodified diffusers QwenImagePipeline."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checkpoint import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.models.checks import check_multiple, check_open_to_interventions, check_scheduler, checked_text_length
from stableflow.models.common import even_sigmas, guide, split_words, unpack
from stableflow.models.guidance import UNGUIDED, branch_tensors, branches_for, scale_rows
from stableflow.models.hooks import AttentionObserver, Branch, Intervention, Layer, TokenLayout
from stableflow.models.latents import PATCH, default_side, pack
from stableflow.models.prompts import warn_about_lost_text
from stableflow.models.times import TIMESTEPS, flow_times, shift_for
from stableflow.models.watch import projections_of, text_and_image, watch_streams
from stableflow.types import Images, Latents

DEFAULT_TEXT, LONGEST_TEXT = 512, 1024
NEGATIVE_PROMPT = " "  # what the model's authors use for "nothing to avoid"; the pipeline has no default of its own


class QwenImageModel:
    """A Qwen-Image pipeline as a velocity field.

    All layers are double. Prompts keep their own length; in a batch the shorter ones are padded and masked. Guidance is
    classifier-free with the pipeline's renormalisation, which is `true_cfg_scale` there.

    Args:
        pipeline: A QwenImagePipeline; it stays the caller's and nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Most text tokens of a prompt; 512 when None, as in the pipeline.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: Any, *, name: str, max_sequence_length: int | None = None):
        check_scheduler(pipeline, name)
        self.pipeline = pipeline
        self.name = name
        self.max_sequence_length = checked_text_length(max_sequence_length, DEFAULT_TEXT, LONGEST_TEXT, "Qwen-Image")
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
        return self.pipeline.vae_scale_factor * PATCH

    @property
    def default_size(self) -> tuple[int, int]:
        side = default_side(self.pipeline.vae)
        return side, side

    @property
    def default_guidance_scale(self) -> float:
        return 4.0

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
        pipeline = self.pipeline
        template = pipeline.tokenizer(pipeline.prompt_template_encode.format("")).input_ids
        closing = max(0, len(template) - pipeline.prompt_template_encode_start_idx)
        warn_about_lost_text(pipeline.tokenizer, prompts, self.max_sequence_length - closing)
        text, mask = self._encode(list(prompts))
        negative, negative_mask = self._encode([NEGATIVE_PROMPT] * len(prompts))
        tensors = {
            "encoder_hidden_states": text,
            "encoder_hidden_states_mask": mask,
            "negative_encoder_hidden_states": negative,
            "negative_encoder_hidden_states_mask": negative_mask,
        }
        return Conditioning(tuple(prompts), tensors)

    def words(self, prompt: str) -> tuple[Word, ...]:
        pipeline = self.pipeline
        first = pipeline.prompt_template_encode_start_idx
        return split_words(
            pipeline.tokenizer,
            prompt,
            first + self.max_sequence_length,
            around=pipeline.prompt_template_encode.format,
            first=first,
        )

    def _encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        text, mask = self.pipeline.encode_prompt(
            prompts, device=self.device, max_sequence_length=self.max_sequence_length
        )
        return text, torch.ones(text.shape[:2], dtype=torch.long, device=text.device) if mask is None else mask

    @torch.no_grad()
    def encode_image(self, images: Images) -> Latents:
        vae = self.pipeline.vae
        video = rearrange(
            images.to(self.device, vae.dtype) * 2 - 1, "batch rgb height width -> batch rgb 1 height width"
        )
        latents = vae.encode(video).latent_dist.mode()[:, :, 0]
        mean, inverse_std = self._statistics()
        return (latents.float() - mean) * inverse_std

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        vae = self.pipeline.vae
        mean, inverse_std = self._statistics()
        video = (latents.to(self.device) / inverse_std + mean).to(vae.dtype)[:, :, None]
        images = vae.decode(video, return_dict=False)[0][:, :, 0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        self.check_size(height, width)
        scheduler = self.pipeline.scheduler
        mu = shift_for(scheduler, (height // self.pixel_multiple) * (width // self.pixel_multiple))
        return flow_times(scheduler, num_steps, mu=mu, sigmas=even_sigmas(num_steps))

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        scale = scale_rows(guidance_scale, self.default_guidance_scale, len(latents), self.device)
        branches = branches_for(scale, self._attachments.every_branch)
        tokens: dict[Branch, Tensor] = {branch: self._pass(latents, t, conditioning, branch) for branch in branches}
        if "unconditional" in tokens:
            combined = _renormalised(guide(tokens, scale), tokens["conditional"].float(), scale)
        else:
            combined = tokens["conditional"].float()
        return unpack(combined, latents.shape[-2] // PATCH)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _pass(self, latents: Latents, t: float, conditioning: Conditioning, branch: Branch) -> Tensor:
        batch, _, latent_height, latent_width = latents.shape
        tensors = branch_tensors(conditioning, branch)
        text, mask = tensors["encoder_hidden_states"], tensors["encoder_hidden_states_mask"]
        layout = TokenLayout(
            image_rows=latent_height // PATCH,
            image_columns=latent_width // PATCH,
            text_tokens=text.shape[1],
            image_start={"double": 0},
            joint_start={"text": 0, "image": text.shape[1]},
        )
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        context = "cond" if branch == "conditional" else "uncond"
        transformer = self.pipeline.transformer
        with self._attachments.forward(t, layout, batch, branches=(branch,)), transformer.cache_context(context):
            return transformer(
                hidden_states=pack(latents).to(self.device, self.dtype),
                timestep=timestep.expand(batch).to(self.dtype) / TIMESTEPS,
                encoder_hidden_states=text,
                encoder_hidden_states_mask=None if mask.all() else mask,
                img_shapes=[[(1, layout.image_rows, layout.image_columns)]] * batch,
                return_dict=False,
            )[0]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean of the autoencoder's latents and one over their deviation, by channel."""
        config = self.pipeline.vae.config
        mean = torch.tensor(config.latents_mean, device=self.device)
        std = torch.tensor(config.latents_std, device=self.device)
        return mean.reshape(1, -1, 1, 1), 1.0 / std.reshape(1, -1, 1, 1)


def _layer(index: int, block: Any) -> Layer:
    projections = partial(projections_of, [block.attn], index)
    return Layer(index, "double", block, projections, text_and_image, partial(_watch, block.attn))


def _watch(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Watch the joint attention: text, then image, each rotated by positions of its own, and padded text masked."""
    # Late: the transformer's module is needed for pictures of attention alone.
    from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

    def join(streams: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Any:
        image_positions, text_positions = kwargs["image_rotary_emb"]
        text, image = streams
        rotated: Any = [
            apply_rotary_emb_qwen(text, text_positions, use_real=False),
            apply_rotary_emb_qwen(image, image_positions, use_real=False),
        ]
        return torch.cat(rotated, dim=1)

    def mask(kwargs: Mapping[str, Any]) -> Tensor | None:
        text = kwargs["encoder_hidden_states_mask"]
        if text is None:
            return None
        image = torch.ones(kwargs["hidden_states"].shape[:2], dtype=torch.bool, device=text.device)
        return torch.cat([text, image], dim=1)[:, None, None, :]

    return watch_streams(attention, observer, streams=["text", "image"], join=join, mask=mask)


def _renormalised(
    guided: Float[Tensor, "batch image_tokens dim"],
    conditional: Float[Tensor, "batch image_tokens dim"],
    scale: Float[Tensor, " batch"],
) -> Float[Tensor, "batch image_tokens dim"]:
    """Give every token of guided rows the norm that it has in the conditional branch, as the pipeline does."""
    norm = torch.linalg.vector_norm(conditional, dim=-1, keepdim=True)
    factor = norm / torch.linalg.vector_norm(guided, dim=-1, keepdim=True)
    return torch.where(scale.reshape(-1, 1, 1) > UNGUIDED, guided * factor, conditional)
