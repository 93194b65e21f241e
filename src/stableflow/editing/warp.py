"""From places of a picture to where their content comes from: similarities, smooth warps, shifts of whole cells."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from stableflow.region import Region

Point = tuple[float, float]
Picture = Float[Tensor, "rows channels height width"]
Origin = Callable[[Float[Tensor, "places 2"]], Float[Tensor, "places 2"]]
"""From places (x, y), in pixels from the top left corner, to where what is seen there comes from."""


def similarity(pivot: Point, shift: Point, scale: float = 1.0, turn: float = 0.0) -> Origin:
    """Return the origin under p -> pivot + shift + scale R (p - pivot).

    Args:
        turn: Degrees of the rotation R, clockwise as seen.
    """
    angle, centre = math.radians(turn), torch.tensor(pivot, dtype=torch.float64)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    to = centre + torch.tensor(shift, dtype=torch.float64)
    return lambda places: centre + (places.double() - to) @ rotation / scale


def smooth_warp(pairs: Sequence[tuple[Point, Point]]) -> Origin:
    """Return the origin under the smoothest warp that takes the first point of every pair to the second.

    One pair is a shift, two are a similarity, and more the thin-plate spline, which bends as little as it can:
    x + A p + sum_i w_i U(|p - q_i|) with U(r) = r^2 log r^2, solved for the way back. Pairs on one line leave the
    spline undetermined; it is then the least of all solutions.

    Source: Bookstein, "Principal Warps: Thin-Plate Splines and the Decomposition of Deformations" (1989).
    """
    (x0, y0), (x1, y1) = pairs[0]
    if len(pairs) == 1:
        return similarity((x0, y0), (x1 - x0, y1 - y0))
    if len(pairs) == 2:
        (u0, v0), (u1, v1) = pairs[1]
        ratio = complex(u1 - x1, v1 - y1) / complex(u0 - x0, v0 - y0)
        turn = math.degrees(math.atan2(ratio.imag, ratio.real))
        return similarity((x0, y0), (x1 - x0, y1 - y0), abs(ratio), turn)
    came, went = (torch.tensor([pair[i] for pair in pairs], dtype=torch.float64) for i in (0, 1))
    n = len(pairs)
    system, wanted = torch.zeros(n + 3, n + 3).double(), torch.zeros(n + 3, 2).double()
    system[:n] = _basis(went, went)
    system[n:, :n] = system[:n, n:].T.clone()
    wanted[:n] = came
    weights = torch.linalg.lstsq(system, wanted, driver="gelsd").solution
    return lambda places: _basis(places.double(), went) @ weights


def _basis(places: Float[Tensor, "places 2"], knots: Float[Tensor, "knots 2"]) -> Float[Tensor, "places functions"]:
    """U of the distances to every knot, then 1, x and y."""
    squared = (places[:, None] - knots[None]).square().sum(-1)
    bent = squared * squared.clamp(min=1e-12).log()
    return torch.cat([bent, torch.ones_like(places[:, :1]), places], dim=1)


def carried(pixels: Picture, origin: Origin, *, mode: str = "bicubic") -> Picture:
    """Return a picture each of whose pixels is read at its origin; beyond the border, from the border.

    A shift by whole pixels copies them to the last bit.
    """
    height, width = pixels.shape[-2:]
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = rearrange([xs, ys], "xy height width -> (height width) xy")
    read = origin(places)
    moved = read - places
    if bool((moved == moved[0].round()).all()):
        x, y = ((read - 0.5).long().T).unbind()
        rows, columns = y.clamp(0, height - 1), x.clamp(0, width - 1)
        return pixels[..., rows, columns].unflatten(-1, (height, width))
    size = torch.tensor([width, height]).double()
    grid = rearrange(read / size * 2 - 1, "(height width) xy -> 1 height width xy", height=height).to(pixels)
    read_there = F.grid_sample(pixels, grid.expand(len(pixels), -1, -1, -1), mode, "border", align_corners=False)
    return read_there.clamp(0, 1)


def carried_region(region: Region, origin: Origin) -> Region:
    """Return where a region's content goes, fading over the edge's own pixel; what leaves the picture is lost."""
    inside = carried(region.amount[:, None], origin, mode="bilinear")
    ys, xs = torch.meshgrid(*(torch.arange(side) + 0.5 for side in region.size), indexing="ij")
    read = origin(rearrange([xs, ys], "xy height width -> (height width) xy")).unflatten(0, region.size)
    height, width = region.size
    known = (read >= 0).all(-1) & (read[..., 0] <= width) & (read[..., 1] <= height)
    return Region((inside[:, 0] * known).float())


def shifted_cells(takes: Float[Tensor, "rows columns"], right: int, down: int, index: Int[Tensor, " cells"]) -> Tensor:
    """Return the index of cells, row by row, with those that take something (> 0) reading `right` and `down` before.

    Cells whose origin lies beyond the border keep what they had.
    """
    rows, columns = takes.shape
    y, x = torch.meshgrid(torch.arange(rows) - down, torch.arange(columns) - right, indexing="ij")
    known = (takes > 0) & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return torch.where(known.flatten(), (y * columns + x).flatten(), index)
