"""Latents and pictures in the forms that diffusers' pipelines take, keep and return."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from stableflow.editing.result import EditResult
from stableflow.errors import InputError
from stableflow.images import to_pil
from stableflow.models.latents import pack, unpack
from stableflow.models.model import DiffusersModel
from stableflow.types import Images, Latents

OUTPUT_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "pil": list,
    "np": np.stack,
    "pt": torch.stack,
    "latent": torch.stack,
}
"""From what a caller may ask for to how rows of it are put together."""


def packs(model: DiffusersModel) -> bool:
    """Whether the pipeline keeps latents as a sequence of tokens."""
    return hasattr(model.pipeline, "_pack_latents")


def between_steps(model: DiffusersModel, latents: Latents) -> Tensor:
    """Return latents as the pipeline keeps them between its steps."""
    return pack(latents, _patch(model)) if packs(model) else latents


def as_argument(model: DiffusersModel, latents: Latents) -> Tensor:
    """Return latents as the pipeline's `latents=` takes them; where a token is one latent, it packs them by itself."""
    latents = latents.to(model.device, model.dtype)
    return pack(latents, _patch(model)) if packs(model) and _patch(model) > 1 else latents


def from_argument(model: DiffusersModel, latents: Any, height: int, width: int) -> Latents:
    """Return what was given as `latents=`, packed or not, as (1, channels, latent_height, latent_width).

    Raises:
        InputError: It is no tensor of that many numbers.
    """
    shape = (1, *model.latent_shape(height, width))
    packed = isinstance(latents, Tensor) and latents.ndim == 3 and packs(model)
    if packed and latents.numel() == torch.Size(shape).numel():
        return unpack(latents, rows=height // model.pixel_multiple, patch=_patch(model))
    if not isinstance(latents, Tensor) or latents.shape != shape:
        given = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise InputError(f"latents must be noise of shape {shape} for {height}x{width} pixels, got {given}.")
    return latents


def as_output(model: DiffusersModel, result: EditResult, output_type: str) -> list[Any]:
    """Return the edits one by one, in the form that was asked for."""
    if output_type == "latent":
        return list(between_steps(model, result.latents))
    return pictures(result.images, output_type, result.source.alpha)


def pictures(images: Images, output_type: str, alpha: Tensor | None = None) -> list[Any]:
    """Return pictures one by one; opacity is put back into PIL images."""
    if output_type == "pil":
        return [to_pil(image, alpha) for image in images]
    if output_type == "np":
        return list(rearrange(images, "rows channels height width -> rows height width channels").numpy())
    return list(images)


def _patch(model: DiffusersModel) -> int:
    return model.family.sizes(model.pipeline).patch
