"""Between pictures, latents and the tokens that a transformer takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from stableflow.models.hooks import TokenLayout
from stableflow.types import Images, Latents

PATCH = 2  # latent pixels on a side of one token
USUAL_SIDE = 1024  # pixels; where the checkpoint does not say


def default_side(vae: Any) -> int:
    """Return the side in pixels of the pictures that the autoencoder was made for."""
    return vae.config.get("sample_size") or USUAL_SIDE


@dataclass(frozen=True)
class Autoencoder:
    """How pictures in [-1, 1] become latents, and latents pictures.

    Args:
        encode: From (vae, pictures on its device and in its type) to the mean, shifted and scaled, float32.
        decode: From (vae, float32 latents, device) to pictures.
    """

    encode: Callable[[Any, Images], Latents]
    decode: Callable[[Any, Latents, torch.device], Images]


def _encode(vae: Any, pictures: Images) -> Latents:
    latents = vae.encode(pictures).latent_dist.mode()
    return (latents.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def _decode(vae: Any, latents: Latents, device: torch.device) -> Images:
    unscaled = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return vae.decode(unscaled.to(device, vae.dtype), return_dict=False)[0]


VAE = Autoencoder(_encode, _decode)
"""The usual one, with one shift and one scale for all channels."""


def pack(latents: Latents, patch: int = PATCH) -> Float[Tensor, "batch image_tokens dim"]:
    """Return one token for every patch x patch latent pixels, row by row."""
    return rearrange(
        latents, "batch channels (rows p) (columns q) -> batch (rows columns) (channels p q)", p=patch, q=patch
    )


def unpack(tokens: Float[Tensor, "batch image_tokens dim"], rows: int, patch: int = PATCH) -> Latents:
    """Undo `pack` on a grid of so many rows of tokens."""
    return rearrange(
        tokens,
        "batch (rows columns) (channels p q) -> batch channels (rows p) (columns q)",
        rows=rows,
        p=patch,
        q=patch,
    )


def grid_positions(layout: TokenLayout) -> Int[Tensor, "image_tokens 3"]:
    """Return position ids (0, row, column), one an image token."""
    return positions_of(layout.image_rows, layout.image_columns)


def positions_of(rows: int, columns: int) -> Int[Tensor, "tokens 3"]:
    """Return position ids (0, row, column) of a grid, row by row."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).reshape(-1, 3)


def joint_positions(layout: TokenLayout, like: Tensor) -> dict[str, Tensor]:
    """Return FLUX's position ids by the transformer's names: text has none, an image token its row and column."""
    return {
        "txt_ids": like.new_zeros(layout.text_tokens, 3),
        "img_ids": grid_positions(layout).to(like.device, like.dtype),
    }
