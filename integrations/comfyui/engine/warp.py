"""Something of the source carried to another place, by whole tokens."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stableflow.errors import InputError


@dataclass(frozen=True, eq=False)
class Warp:
    """From where each token of the edit takes what it reads of the source.

    Args:
        origin: Flat number of the source's token, for each token.
        vacated: Tokens that something left: nothing of the source belongs there.
        seed: Of the noise that an edit begins with there.
    """

    origin: Int[Tensor, "token_rows token_columns"]
    vacated: Bool[Tensor, "token_rows token_columns"]
    seed: int = 0

    @staticmethod
    def moving(mask: Bool[Tensor, "token_rows token_columns"], right: int, down: int, seed: int = 0) -> "Warp":
        """Return the warp that moves what the mask covers by whole tokens.

        Raises:
            InputError: Nothing is covered, or all of it would leave the picture.
        """
        rows, columns = mask.shape
        numbers = torch.arange(rows * columns).reshape(rows, columns)
        ys, xs = mask.nonzero(as_tuple=True)
        to_y, to_x = ys + down, xs + right
        stays = (to_y >= 0) & (to_y < rows) & (to_x >= 0) & (to_x < columns)
        if not bool(stays.any()):
            raise InputError("Nothing is left to move: the mask is empty, or all of it would leave the picture.")
        origin, vacated = numbers.clone(), mask.clone()
        origin[to_y[stays], to_x[stays]] = numbers[ys[stays], xs[stays]]
        vacated[to_y[stays], to_x[stays]] = False
        return Warp(origin, vacated, seed)

    def tokens(self, features: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Return keys or values with each token's origin read; met before RoPE, they rotate to their new place."""
        return features[:, self.origin.flatten().to(features.device)]

    def latents(self, z: Float[Tensor, "*batch height width"], patch: int) -> Float[Tensor, "*batch height width"]:
        """Return latents carried the same way.

        Args:
            patch: Side of a token in latents; height and width must be multiples of it.
        """
        rows, columns = self.origin.shape
        if z.shape[-2:] != (rows * patch, columns * patch):
            raise InputError(
                f"Moving needs a picture of whole tokens, {rows} x {columns} of {patch} latents; its latents are "
                f"{tuple(z.shape[-2:])}. Cut the picture to a multiple of a token."
            )
        cells = rearrange(z, "... (y a) (x b) -> ... (y x) a b", a=patch, b=patch)
        carried = cells[..., self.origin.flatten().to(z.device), :, :]
        return rearrange(carried, "... (y x) a b -> ... (y a) (x b)", y=rows)

    def start(self, z: Float[Tensor, "*batch height width"], patch: int) -> Float[Tensor, "*batch height width"]:
        """Return carried noise, with fresh noise where something left."""
        fresh = torch.randn(z.shape, generator=torch.Generator("cpu").manual_seed(self.seed)).to(z)
        vacated = self.vacated.repeat_interleave(patch, 0).repeat_interleave(patch, 1).to(z.device)
        return torch.where(vacated, fresh, self.latents(z, patch))
