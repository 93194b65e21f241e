"""Bands of detail: an orthogonal wavelet transform, and one picture's details laid into another."""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

DB4 = (0.2303778133088964, 0.7148465705529155, 0.6308807679298587, -0.0279837694168599,
       -0.1870348117190931, 0.0308413818355607, 0.0328830116668852, -0.0105974017850690)  # fmt: skip
"""Daubechies' low-pass filter with four vanishing moments."""

Picture = Float[Tensor, "batch channels height width"]


@cache
def analysis(length: int) -> Float[Tensor, "length length"]:
    """Return the orthogonal matrix of one level: low band first, then the details; float64, ends joined."""
    matrix, half = torch.zeros(length, length, dtype=torch.float64), length // 2
    for k in range(half):
        for n, low in enumerate(DB4):
            matrix[k, (2 * k + n) % length] += low
            matrix[half + k, (2 * k + n) % length] += (-1) ** n * DB4[len(DB4) - 1 - n]
    return matrix


def with_details(own: Picture, other: Picture, amount: Float[Tensor, "batch 1 height width"], levels: int) -> Picture:
    """Return a picture whose detail bands are (1 - amount) own + amount other's; the lowest band stays its own.

    Args:
        own, other: Of one shape; borders are mirrored.
        amount: At 1 details are the other's alone; beyond, they are drawn past them.
        levels: How often the low band is divided again.
    """
    height, width = own.shape[-2:]
    own, other, amount = (_mirrored(x, levels) for x in (own, other.to(own), amount.to(own)))
    return _blended(own, other, amount, levels)[..., :height, :width]


def _blended(own: Picture, other: Picture, amount: Tensor, levels: int) -> Picture:
    if levels == 0:
        return own
    (height, width), half = own.shape[-2:], (own.shape[-2] // 2, own.shape[-1] // 2)
    rows, columns = (analysis(length).to(own) for length in (height, width))
    mine, theirs = (rows @ x @ columns.T for x in (own, other))
    amount = F.interpolate(amount, half, mode="bilinear", align_corners=False)
    bands = torch.lerp(mine, theirs, amount.repeat(1, 1, 2, 2))
    low = (..., slice(half[0]), slice(half[1]))
    bands[low] = _blended(mine[low], theirs[low], amount, levels - 1)
    return rows.T @ bands @ columns


def _mirrored(x: Tensor, levels: int) -> Tensor:
    """Return a picture beside its mirror images, whose ends meet; its sides can then be halved `levels` times."""
    whole = 2 ** max(levels - 1, 0)
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % whole, 0, -height % whole), mode="replicate")
    x = torch.cat([x, x.flip(-1)], -1)
    return torch.cat([x, x.flip(-2)], -2)
