"""Between pictures, latents and the tokens that a transformer takes."""

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


def vae_encode(vae: Any, images: Images, device: torch.device) -> Latents:
    """Return the mean, shifted and scaled, float32."""
    latents = vae.encode(images.to(device, vae.dtype) * 2 - 1).latent_dist.mode()
    return (latents.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def vae_decode(vae: Any, latents: Latents, device: torch.device) -> Images:
    """Return images in [0, 1], float32."""
    unscaled = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    images = vae.decode(unscaled.to(device, vae.dtype), return_dict=False)[0]
    return (images.float() / 2 + 0.5).clamp(0, 1)


def pack(latents: Latents) -> Float[Tensor, "batch image_tokens dim"]:
    """Return one token for every 2 x 2 latent pixels, row by row."""
    return rearrange(
        latents, "batch channels (rows p) (columns q) -> batch (rows columns) (channels p q)", p=PATCH, q=PATCH
    )


def unpack(tokens: Float[Tensor, "batch image_tokens dim"], rows: int) -> Latents:
    """Undo `pack` on a grid of so many rows of tokens."""
    return rearrange(
        tokens,
        "batch (rows columns) (channels p q) -> batch channels (rows p) (columns q)",
        rows=rows,
        p=PATCH,
        q=PATCH,
    )


def grid_positions(layout: TokenLayout) -> Int[Tensor, "image_tokens 3"]:
    """Return position ids (0, row, column), one an image token."""
    rows, columns = torch.meshgrid(torch.arange(layout.image_rows), torch.arange(layout.image_columns), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
