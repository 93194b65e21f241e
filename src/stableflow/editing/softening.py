"""SAM-Flow's mask: a soft one with a core and a ring around it, from a map of where words are attended to."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Map = Float[Tensor, "batch 1 height width"]

BLUR, QUANTILE, STEEP, RADIUS = (2.0, 0.6), (0.6, 0.8), (5.0, 20.0), (6 / 64, 3 / 64)
"""In the first step and in the last: deviation in tokens, quantile, slope, and the ring's share of the shorter side."""
LOWEST, HIGHEST, CORE, RING = 0.1, 0.6, 0.85, 0.35


@dataclass(frozen=True)
class Softened:
    """How far edits may act.

    Args:
        weight: Soft, in [0, 1].
        core: 1 where they act fully, 0 elsewhere.
        ring: 1 around the core.
    """

    weight: Map
    core: Map
    ring: Map

    def __or__(self, other: "Softened") -> "Softened":
        """Return what is open in either."""
        pairs = [(self.weight, other.weight), (self.core, other.core), (self.ring, other.ring)]
        return Softened(*(torch.maximum(one, two) for one, two in pairs))

    def joined(self) -> "Softened":
        """Return what is open in any row."""
        return Softened(*(x.amax(0, keepdim=True) for x in (self.weight, self.core, self.ring)))

    def at(self, size: tuple[int, int]) -> "Softened":
        """Return the mask at another size, each token a block of latents."""
        return Softened(*(F.interpolate(x, size, mode="nearest") for x in (self.weight, self.core, self.ring)))


def softened(open_: Map, progress: float) -> Softened:
    """Return the mask of a map in [0, 1]: sigmoid(slope (map - quantile)), 1 in its core, raised in a ring around it.

    Args:
        open_: Where words change, by token.
        progress: Share of the steps done; later masks are tighter and steeper.
    """
    cut = open_.flatten(1).quantile(_between(QUANTILE, progress), dim=1).clamp(LOWEST, HIGHEST)
    soft = torch.sigmoid(_between(STEEP, progress) * (open_ - cut.reshape(-1, 1, 1, 1)))
    core = (soft > CORE).to(soft)
    soft = torch.maximum(soft, core)
    radius = max(1, int(_between(RADIUS, progress) * min(open_.shape[-2:])))
    ring = F.max_pool2d(core, 2 * radius + 1, stride=1, padding=radius) - core
    return Softened(soft + RING * ring * (1 - soft), core, ring)


def blurred(maps: Map, progress: float) -> Map:
    """Return maps smoothed by a Gaussian of 3 x 3 tokens, narrower as steps go on."""
    side = torch.exp(-0.5 * (torch.tensor([-1.0, 0.0, 1.0]) / _between(BLUR, progress)) ** 2).to(maps)
    kernel = torch.outer(side, side) / side.sum() ** 2
    return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel[None, None])


def _between(ends: tuple[float, float], progress: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * progress
