"""From where a thing roughly is to its outline: the colours of the picture around every pixel decide."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.otsu import otsu_threshold
from stableflow.types import Images

SIDE = 128  # pixels of the longer side at most, at which outlines are looked for
ROUNDS = 4
NEAR, AROUND = 1 / 16, 7 / 32  # of the longer side: spread of what is alike, and of what colours are compared with
ALIKE, SAME = 0.1, 0.05  # spread of colours for both, in [0, 1]
SAMPLES = 4  # to each side: how finely neighbourhoods are sampled
SURE = 3.0  # log odds that colours give at most


def outlined(
    hints: Float[Tensor, "rows hint_rows hint_columns"], picture: Images
) -> Float[Tensor, "rows height width"]:
    """Return 1 inside the outline of a thing and 0 outside.

    With p the chance that a pixel is inside and K the likeness of two pixels in place and colour, repeatedly

        logit p = hint + log(K p / K (1 - p)) + 2 (2 K' p - 1)

    where K compares with all around, K' with what is near. A hint is how far a value lies above Otsu's threshold, in
    standard deviations of all.

    Args:
        hints: High where the thing is, on a coarse grid.
        picture: One row.

    Source: graph cuts over colour models are Rother et al., "GrabCut" (SIGGRAPH 2004); mean-field steps by bilateral
    filters Kraehenbuehl and Koltun (NeurIPS 2011), arXiv:1210.5644. Colours here are compared locally.
    """
    size = (picture.shape[-2], picture.shape[-1])
    part = min(1.0, SIDE / max(size))
    small = (max(1, round(size[0] * part)), max(1, round(size[1] * part)))
    pixels = F.interpolate(picture.float().cpu(), size=small, mode="bilinear", antialias=True)
    pixels = F.avg_pool2d(F.pad(pixels, [1] * 4, mode="replicate"), 3, stride=1)
    rows = []
    for hint in hints.float().cpu():
        prior = F.interpolate(hint[None, None], size=small, mode="bilinear")[0, 0]
        prior = (prior - otsu_threshold(hint.flatten())) / hint.std().clamp_min(1e-6)
        p = prior.sigmoid()
        for _ in range(ROUNDS):
            inside, whole = _filtered(p, pixels, AROUND, SAME)
            near, near_whole = _filtered(p, pixels, NEAR, ALIKE)
            colours = torch.log((inside + 1e-4) / (whole - inside + 1e-4)).clamp(-SURE, SURE)
            p = (prior + colours + 2 * (2 * near / near_whole - 1)).sigmoid()
        rows.append(F.interpolate(p[None, None], size=size, mode="bilinear")[0, 0])
    return (torch.stack(rows) > 0.5).float()


def _filtered(
    values: Float[Tensor, "height width"], pixels: Images, reach: float, colour: float
) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]]:
    """Return the sum over neighbours of likeness times value, and of likeness."""
    total, weight = torch.zeros_like(values), torch.zeros_like(values)
    spread = reach * max(values.shape)
    for dy, dx in _steps(spread):
        closeness = torch.exp(torch.tensor(-(dy**2 + dx**2) / (2 * spread**2)))
        (there, other), known = _shifted(values, pixels, dy, dx)
        likeness = closeness * known * torch.exp(-(other - pixels[0]).square().sum(0) / (2 * colour**2))
        total, weight = total + likeness * there, weight + likeness
    return total, weight


def _steps(spread: float) -> Iterator[tuple[int, int]]:
    """Shifts to twice the spread in every direction."""
    step = max(1, round(2 * spread / SAMPLES))
    reach = [i * step for i in range(-SAMPLES, SAMPLES + 1)]
    return ((dy, dx) for dy in reach for dx in reach)


def _shifted(
    values: Float[Tensor, "height width"], pixels: Images, dy: int, dx: int
) -> tuple[tuple[Tensor, Tensor], Float[Tensor, "height width"]]:
    """Values and pixels from (dy, dx) further, and 1 where there are any."""
    height, width = values.shape
    stack = torch.cat([values[None], pixels[0], torch.ones_like(values)[None]])
    padded = F.pad(stack, (max(0, -dx), max(0, dx), max(0, -dy), max(0, dy)))
    moved = padded[:, max(0, dy) : max(0, dy) + height, max(0, dx) : max(0, dx) + width]
    return (moved[0], moved[1:4]), moved[4]
