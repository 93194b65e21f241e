"""The energy of a moved thing: alike where it goes, unlike where it stood, and there like the background."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.energies import Energy
from stableflow.editing.run import Run
from stableflow.region import Region

Features = Float[Tensor, "rows tokens dim"]
Place = Float[Tensor, "*rows tokens"]

ALIKE, UNLIKE, FILL, SHARP = 4.0, 0.2, 0.8, 4.0


def region_energy(run: Run, thing: Region, by: Sequence[int]) -> Energy:
    """Return the energy, a sum over layers' mean and rows.

    Args:
        thing: At the source's pixels, one for all rows or one a row.
        by: Pixels (right, down) that it moves; (0, 0) holds it where it is.
    """
    made, side = run.source.fingerprint, run.model.pixel_multiple
    grid = made.height // side, made.width // side
    stood, there = (_place(region, (made.height, made.width), grid, run) for region in (thing, thing.moved(*by)))
    vacated, ground = (stood - there).clamp_min(0), 1 - torch.maximum(stood, there)
    leaves = bool(vacated.any()) and bool(ground.any())

    def energy(keys: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        terms = []
        for own, known in zip(keys, wanted):
            term = ALIKE / (1 + SHARP * alike(own, shifted(known, grid, (by[0] / side, by[1] / side)), there))
            if leaves:
                fill = torch.cosine_similarity(average(own, vacated), average(known, ground), dim=-1)
                term = term + UNLIKE * alike(own, known, vacated) + FILL / (1 + SHARP * (fill + 1) / 2)
            terms.append(term)
        return torch.stack(terms).mean(0).sum()

    return energy


def alike(own: Features, other: Float[Tensor, "#rows tokens dim"], place: Place) -> Float[Tensor, " rows"]:
    """Return the mean cosine over a place, moved into [0, 1]."""
    cosine = torch.cosine_similarity(own, other, dim=-1)
    return ((cosine + 1) / 2 * place).sum(-1) / place.sum(-1).clamp_min(1e-6)


def average(features: Features, place: Place) -> Float[Tensor, "rows dim"]:
    """Return the mean features of a place."""
    return (features * place[..., None]).sum(-2) / place.sum(-1, keepdim=True).clamp_min(1e-6)


def shifted(features: Features, grid: tuple[int, int], by: tuple[float, float]) -> Features:
    """Return features whose content is moved by tokens (right, down), parts of tokens mixed; borders are repeated."""
    (rows, columns), (right, down) = grid, by
    y, x = torch.meshgrid(torch.arange(rows) - down, torch.arange(columns) - right, indexing="ij")
    places = torch.stack([(2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1], -1)[None].to(features)
    pictures = features.transpose(1, 2).unflatten(2, grid)
    moved = F.grid_sample(
        pictures, places.expand(len(features), -1, -1, -1), padding_mode="border", align_corners=False
    )
    return moved.flatten(2).transpose(1, 2)


def _place(region: Region, size: tuple[int, int], grid: tuple[int, int], run: Run) -> Place:
    return region.padded(size).tokens(grid)[..., 0].to(run.clean)
