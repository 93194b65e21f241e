"""Compute a region's image tokens alone; everything reads the source's keys and values of the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from stableflow.interventions.address import address_of
from stableflow.interventions.store import KVStore
from stableflow.models.base import Division, Forward, Layer, OutsideHook, Part, TokenLayout
from stableflow.region import Region


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """Leave the image tokens outside a region out of every pass; text and region read what the source had there.

    Where a source's keys and values are injected outside the region in all layers, at full weight, what is computed
    for the tokens there is read by nobody: their keys and values are replaced, and only their own queries see their
    features. So without them the others come out the same, to rounding. Velocities outside the region mean nothing.

    Args:
        region: At the pixels of the padded picture; a token that it touches in any row is computed in all rows.
        store: With keys and values of all layers at every pass.

    Source: Zhu et al., "KV-Edit: Training-Free Image Editing for Precise Background Preservation" (ICCV 2025),
    arXiv:2502.17363, the cached background; there for FLUX alone.
    """

    region: Region
    store: KVStore
    _divisions: dict[tuple[int, int, torch.device], Division] = field(
        default_factory=dict[tuple[int, int, torch.device], Division], repr=False
    )

    def hooks(self, layers: Sequence[Layer]) -> list[OutsideHook]:
        return [OutsideHook(layer, self._divide, partial(self._supply, layer.index)) for layer in layers]

    def _divide(self, layout: TokenLayout, device: torch.device) -> Division:
        key = (layout.image_rows, layout.image_columns, device)
        if key not in self._divisions:
            self._divisions[key] = divide(self.region, key[:2], device)
        return self._divisions[key]

    def _supply(self, layer: int, forward: Forward, part: Part, like: Tensor) -> Tensor:
        division = forward.layout.division
        assert division is not None
        return self.store.get_some(address_of(forward, layer, part), division.left_out, of=division.tokens, like=like)


def divide(region: Region, grid: tuple[int, int], device: torch.device | str = "cpu") -> Division:
    """Return the tokens of a grid (rows, columns) that a region touches in any row, and the others."""
    inside = region.tokens(grid, "any").amax(0).flatten() > 0
    computed, left_out = (mask.nonzero().flatten().to(device) for mask in (inside, ~inside))
    return Division(computed, left_out)
