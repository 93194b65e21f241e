"""How much an edit changes what it should not: the mean change outside its region, and a shift of the whole picture."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.region import Region
from stableflow.types import Images


def drift(given: Float[Tensor, "1 3 height width"], edits: Images, region: Region | None) -> dict[str, Any]:
    """Return what recipes say of it."""
    moved = [list(pair) for pair in shift(given, edits)]
    return {"outside_change": outside_change(given, edits, region), "shift": moved}


def outside_change(given: Float[Tensor, "1 3 height width"], edits: Images, region: Region | None) -> list[float]:
    """Return the mean absolute difference outside the region of every edit, 0 to 1; of the whole picture without one.

    Pixels count by how far they lie outside; where nothing does, the change is 0.
    """
    difference = (edits - given).abs().mean(1)  # -> (edits, height, width)
    outside = torch.ones_like(difference[:1]) if region is None else 1 - region.amount
    outside = outside.to(difference).expand_as(difference)
    total = (difference * outside).sum((1, 2)) / outside.sum((1, 2)).clamp(min=1e-12)
    return [round(value, 6) for value in total.tolist()]


def shift(given: Float[Tensor, "1 3 height width"], edits: Images) -> list[tuple[int, int]]:
    """Return by how many pixels (x to the right, y down) every edit as a whole lies beside the given picture.

    The place of the highest peak of the phase correlation of both in grey, F^-1(F(a) conj F(b) / |F(a) F(b)|).

    Source: Kuglin and Hines, "The Phase Correlation Image Alignment Method" (1975).
    """
    height, width = edits.shape[-2:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)[None]
    a, b = (_flat(pictures) * window for pictures in (edits, given))
    product = torch.fft.fft2(a) * torch.fft.fft2(b).conj()
    peaks = torch.fft.ifft2(product / product.abs().clamp(min=1e-9)).real.flatten(1).argmax(1)
    ys, xs = (peaks // width).tolist(), (peaks % width).tolist()
    return [(_signed(x, width), _signed(y, height)) for x, y in zip(xs, ys)]


def _flat(pictures: Images) -> Float[Tensor, "batch height width"]:
    grey = pictures.float().mean(1)
    return grey - grey.mean((1, 2), keepdim=True)


def _signed(place: int, length: int) -> int:
    return place - length if place > length // 2 else place
