"""Things moved in pixels: what is where afterwards, and what nothing covers any more."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from stableflow.editing.moves import Move
from stableflow.editing.warp import carried, carried_region, shifted_cells
from stableflow.region import Region
from stableflow.types import Images

EDGE = 1  # pixels around a thing that its drawing has touched as well
FADE = 2  # pixels over which what fills a hole fades out


@dataclass(frozen=True, eq=False)
class Collage:
    """A picture with things at their new places.

    Args:
        pixels: Things pasted, and holes filled smoothly from their border.
        placed: How far pasted pixels cover what was there.
        hole: What was left by something and is covered by nothing.
    """

    pixels: Images
    placed: Region
    hole: Region

    def with_holes_of(self, drawn: Images) -> Images:
        """Return the collage with its holes, and a fading edge around them, from other pictures; a row each."""
        amount = self.soft_hole.amount[:, None].to(drawn)
        ground = self.pixels.to(drawn).expand_as(drawn)
        return torch.where(amount == 0, ground, torch.lerp(ground, drawn, amount))

    def drawn_on(self, pixels: Images) -> "Collage":
        """Return another picture with all that changes as a hole in it."""
        changes = self.hole | Region((self.placed.amount > 0).float())
        return Collage(pixels, Region.nowhere(self.hole.size), changes)

    @property
    def soft_hole(self) -> Region:
        """1 in the hole, fading out around it, and nothing where things were pasted."""
        return self.hole.grow(FADE).feather(FADE) & ~self.placed

    @property
    def changed(self) -> Region:
        """1 wherever it differs from the picture that it is of; hard-edged."""
        touched = self.soft_hole | self.placed
        return Region((touched.amount > 0).float())


def paste(pixels: Images, things: Sequence[Region], moves: Sequence[Move]) -> Collage:
    """Return the picture with every thing where its move takes it, later ones on top.

    Args:
        pixels: One row.
        things: One region a move, at the picture's pixels.
    """
    left = placed = Region.nowhere((pixels.shape[-2], pixels.shape[-1]))
    for thing, move in zip(things, moves):
        left = left if move.copy else left | thing
    collage = filled(pixels, (left.grow(EDGE).amount[:, None] > 0).to(pixels))
    for thing, move in zip(things, moves):
        origin = move.origin(thing)
        there = carried_region(thing, origin)
        collage = torch.lerp(collage, carried(pixels, origin), there.amount[:, None].to(pixels))
        placed = placed | there
    hole = Region((left.grow(EDGE).amount > 0).float()) & Region((placed.amount < 0.5).float())
    return Collage(collage, placed, hole)


def read_cells(
    things: Sequence[Region], moves: Sequence[Move], grid: tuple[int, int], cell: int
) -> Int[Tensor, " cells"]:
    """Return which cell every cell reads after shifts by whole cells, row by row, later things on top.

    Args:
        grid: Rows and columns of the cells, tokens or latent pixels.
        cell: Pixels on a side; every shift is a multiple of it.
    """
    index = torch.arange(grid[0] * grid[1])
    for thing, move in zip(things, moves):
        right, down = (round(side / cell) for side in move.shift or (0, 0))
        there = carried_region(thing, move.origin(thing))
        index = shifted_cells(_touched(there, grid, cell), right, down, index)
    return index


def vacated(
    things: Sequence[Region], moves: Sequence[Move], grid: tuple[int, int], cell: int
) -> Float[Tensor, "rows columns"]:
    """Return 1 at cells that things have left, wholly or in part, and that nothing touches now; 0 elsewhere."""
    left = covered = torch.zeros(grid)
    for thing, move in zip(things, moves):
        left = left if move.copy else torch.maximum(left, _touched(thing, grid, cell))
        covered = torch.maximum(covered, _touched(carried_region(thing, move.origin(thing)), grid, cell))
    return ((left > 0) & (covered == 0)).float()


def _touched(region: Region, grid: tuple[int, int], cell: int) -> Float[Tensor, "rows columns"]:
    """Return the largest amount in each cell; padding at the right and the bottom lies outside."""
    return rearrange(region.padded((grid[0] * cell, grid[1] * cell)).tokens(grid, "any"), "1 (y x) 1 -> y x", y=grid[0])


def filled(pixels: Images, hole: Float[Tensor, "1 1 height width"]) -> Images:
    """Return the picture with the hole (1 inside) filled smoothly from around it; the rest as it is."""
    return torch.where(hole == 0, pixels, _spread(pixels * (1 - hole), 1 - hole))


def _spread(total: Images, weight: Float[Tensor, "1 1 height width"]) -> Images:
    """Known colours at this size, and those of half the size where none are."""
    known = total / weight.clamp_min(1e-6)
    if max(total.shape[-2:]) == 1:
        return known
    coarse = _spread(F.avg_pool2d(total, 2, ceil_mode=True), F.avg_pool2d(weight, 2, ceil_mode=True))
    wide = F.interpolate(coarse, size=total.shape[-2:], mode="bilinear")
    return torch.lerp(wide, known, weight)
