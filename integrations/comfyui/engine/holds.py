"""What an edit keeps of its source: which layers, where, how strongly."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError, TokenLayoutError


@dataclass(frozen=True)
class Hold:
    """Keys and values of the source's image tokens that take the place of the edit's own.

    Args:
        layers: In execution order.
        weight: 1 replaces them, 0 leaves them.
        where: "everywhere"; "kept", which is all that no mask frees; or "outside" of the mask, nowhere without one.
    """

    layers: tuple[int, ...]
    weight: float = 1.0
    where: Literal["everywhere", "kept", "outside"] = "everywhere"

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise InputError(f"The weight of what is held must lie in [0, 1], got {self.weight}.")


Holds = tuple[Hold, ...]


def dialled(layers: tuple[int, ...], strength: float) -> Holds:
    """Return what strength holds: every layer with weight (1 - strength)^2, and all of it outside a mask.

    Args:
        layers: All layers of the model.
        strength: In [0, 1]; 1 is free.
    """
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"strength must lie in [0, 1] (0 is the source, 1 is free), got {strength}.")
    return (Hold(layers, (1 - strength) ** 2), Hold(layers, 1.0, "outside"))


@dataclass(frozen=True, eq=False)
class Free:
    """Where an edit may change the picture, 0 to 1; what a token has anywhere, it has whole.

    Args:
        mask: As ComfyUI has it; one for all edits, or one an edit.
    """

    mask: Float[Tensor, "edits height width"]

    def __post_init__(self) -> None:
        if self.mask.ndim != 3 or not bool(((self.mask >= 0) & (self.mask <= 1)).all()):
            raise InputError(f"A mask is (edits, height, width) in [0, 1], got {tuple(self.mask.shape)}.")

    def tokens(self, grid: tuple[int, int]) -> Float[Tensor, "edits token_rows token_columns"]:
        """Return the amount at each token: the largest of its pixels."""
        return F.adaptive_max_pool2d(self.mask.float()[:, None], grid)[:, 0]

    def latents(self, size: tuple[int, int], patch: int) -> Float[Tensor, "edits 1 latent_height latent_width"]:
        """Return the amount at each latent, in whole tokens."""
        grid = (-(-size[0] // patch), -(-size[1] // patch))
        whole = self.tokens(grid).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        return whole[:, None, : size[0], : size[1]]

    def check_rows(self, rows: int) -> None:
        """Raise unless there is one mask for all edits, or one for each."""
        if len(self.mask) not in (1, rows):
            raise TokenLayoutError(f"{len(self.mask)} masks for {rows} edits. Give one mask, or one for each edit.")


def amounts(where: str, free: Free | None, grid: tuple[int, int]) -> Float[Tensor, "edits rows columns"] | None:
    """Return how far something is held at each token, [0, 1]; None is all of it everywhere."""
    if where == "everywhere" or (where == "kept" and free is None):
        return None
    return torch.zeros(1, *grid) if free is None else 1 - free.tokens(grid)
