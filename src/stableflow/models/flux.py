"""FLUX.1 (dev, schnell and every checkpoint in that layout) over an unmodified diffusers FluxPipeline."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from einops import rearrange
from torch import Tensor

from stableflow.errors import InputError, InterventionError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import (
    AttentionObserver,
    Conditioning,
    Guidance,
    Intervention,
    Kind,
    Layer,
    Part,
    Projection,
    TokenLayout,
    Word,
)
from stableflow.models.prompts import split_words, warn_about_lost_text
from stableflow.types import Images, Latents

PATCH = 2  # latent pixels on a side of one token
LONGEST_TEXT = 512  # tokens that FLUX's text encoder was trained with
TIMESTEPS = 1000  # diffusers' `timestep` is t * 1000


class FluxModel:
    """A FLUX.1 pipeline as a velocity field.

    Args:
        pipeline: Stays the caller's; nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Text tokens of every prompt; the tokenizer's own limit when None.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: FluxPipeline, *, name: str, max_sequence_length: int | None = None):
        if pipeline.scheduler.config.get("stochastic_sampling", False):
            raise InputError(
                f"The scheduler of {name!r} has stochastic_sampling on, which adds noise at every step; a flow "
                "is deterministic. Set stochastic_sampling to false in its scheduler config."
            )
        self.pipeline: Any = pipeline
        self.name = name
        self.max_sequence_length = _text_length(pipeline, max_sequence_length)
        self._attachments = AttachmentStack(lambda: self.layers)

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
        return self.pipeline._execution_device

    @property
    def pixel_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * PATCH

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.pipeline.vae.config.get("sample_size") or 1024
        return side, side

    @property
    def default_guidance_scale(self) -> float | None:
        return 3.5 if self.pipeline.transformer.config.guidance_embeds else None

    def checkpoint_hash(self) -> str:
        digest = hashlib.sha256()
        for name, parameter in self.pipeline.transformer.named_parameters():
            flat = parameter.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 64)].float().cpu().numpy()
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            digest.update(np.ascontiguousarray(sample).tobytes())
        return digest.hexdigest()[:16]

    @property
    def modifications(self) -> tuple[str, ...]:
        transformer = self.pipeline.transformer
        adapters = getattr(transformer, "peft_config", {})
        quantiser = getattr(transformer, "hf_quantizer", None)
        return tuple(f"LoRA {name!r}" for name in adapters) + (("quantised weights",) if quantiser else ())

    def check_size(self, height: int, width: int) -> None:
        multiple = self.pixel_multiple
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InputError(
                f"height and width must be positive multiples of {multiple} for {self.name!r}, got {height}x{width}. "
                f"The nearest is {_nearest(height, multiple)}x{_nearest(width, multiple)}."
            )

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
        vae = self.pipeline.vae
        latents = vae.encode(images.to(self.device, vae.dtype) * 2 - 1).latent_dist.mode()
        return (latents.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        vae = self.pipeline.vae
        unscaled = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        images = vae.decode(unscaled.to(self.device, vae.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        if num_steps < 1:
            raise InputError(f"num_steps must be 1 or more, got {num_steps}.")
        _, latent_height, latent_width = self.latent_shape(height, width)
        scheduler = self.pipeline.scheduler
        config = scheduler.config
        mu = calculate_shift(
            (latent_height // PATCH) * (latent_width // PATCH),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        own = type(scheduler).from_config(config)  # a scheduler keeps state; the pipeline's stays untouched
        own.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)
        return TimeGrid(tuple(own.sigmas.tolist()))

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        batch, _, latent_height, latent_width = latents.shape
        layout = self._layout(latent_height, latent_width, conditioning)
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        with self._attachments.forward(t, layout, batch), self.pipeline.transformer.cache_context("cond"):
            tokens = self.pipeline.transformer(
                hidden_states=_pack(latents).to(self.device, self.dtype),
                timestep=timestep.expand(batch).to(self.dtype) / TIMESTEPS,
                guidance=self._guidance(guidance_scale, batch),
                txt_ids=torch.zeros(layout.text_tokens, 3, device=self.device, dtype=self.dtype),
                img_ids=_image_ids(layout).to(self.device, self.dtype),
                return_dict=False,
                **conditioning.tensors,
            )[0]
        return _unpack(tokens, layout).to(torch.float32)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _guidance(self, scale: Guidance, batch: int) -> Tensor | None:
        if not self.pipeline.transformer.config.guidance_embeds:
            return None
        if scale is None:
            scale = self.default_guidance_scale
        values = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        if values.ndim and values.shape != (batch,):
            raise InputError(f"guidance_scale has {len(values)} values for {batch} rows; pass one, or one a row.")
        return values.expand(batch)

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


def _text_length(pipeline: FluxPipeline, requested: int | None) -> int:
    if requested is None:
        return min(LONGEST_TEXT, pipeline.tokenizer_2.model_max_length)
    if not 1 <= requested <= LONGEST_TEXT:
        raise InputError(f"max_sequence_length must lie in 1..{LONGEST_TEXT} for FLUX, got {requested}.")
    return requested


def _layer(index: int, kind: Kind, block: Any) -> Layer:
    attention = block.attn
    return Layer(index, kind, block, partial(_projection, attention, index), _identity, partial(_watch, attention))


def _identity(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Both streams as FLUX blocks return them: text, image."""
    return kwargs["encoder_hidden_states"], kwargs["hidden_states"]


def _projection(attention: Any, index: int, part: Part) -> Projection:
    if attention.fused_projections:
        raise InterventionError(
            f"Layer {index} has fused QKV projections, so its keys and values never pass through to_k and to_v. Call "
            "pipeline.transformer.unfuse_qkv_projections() before editing."
        )
    return Projection(attention.to_k if part == "key" else attention.to_v)


def _watch(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Gather what leaves the QK norms during a pass; at its end, join the streams, text first, and rotate them."""
    streams = ["added_", ""] if attention.added_kv_proj_dim is not None else [""]
    normed: dict[str, Tensor] = {}

    def keep(name: str, module: Any, args: Any, output: Tensor) -> None:
        normed[name] = output

    def report(module: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        def joint(part: str) -> Any:
            tokens = torch.cat([normed[f"norm_{stream}{part}"] for stream in streams], dim=1)
            return apply_rotary_emb(tokens, kwargs["image_rotary_emb"], sequence_dim=1)

        observer(joint("q"), joint("k"))
        normed.clear()

    handles = [attention.register_forward_hook(report, with_kwargs=True)]
    for name in [f"norm_{stream}{part}" for stream in streams for part in "qk"]:
        handles.append(getattr(attention, name).register_forward_hook(partial(keep, name)))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _pack(latents: Tensor) -> Tensor:
    return rearrange(
        latents,
        "batch channels (rows p) (columns q) -> batch (rows columns) (channels p q)",
        p=PATCH,
        q=PATCH,
    )


def _unpack(tokens: Tensor, layout: TokenLayout) -> Tensor:
    return rearrange(
        tokens,
        "batch (rows columns) (channels p q) -> batch channels (rows p) (columns q)",
        rows=layout.image_rows,
        p=PATCH,
        q=PATCH,
    )


def _image_ids(layout: TokenLayout) -> Tensor:
    """Position ids (0, row, column), one a token."""
    rows, columns = torch.meshgrid(torch.arange(layout.image_rows), torch.arange(layout.image_columns), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def _nearest(side: int, multiple: int) -> int:
    return max(multiple, math.floor(side / multiple + 0.5) * multiple)
