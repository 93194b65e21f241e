"""EDICT's coupled step, which is undone exactly: each of a pair moves by the velocity of the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.checks import check_number
from stableflow.types import Velocity


@dataclass(frozen=True)
class Coupled:
    """To the image x += dt v(y, t0), y += dt v(x, t0), x = p x + (1 - p) y, y = p y + (1 - p) x; to the noise, undone.

    A step up undoes the step down with the same times to rounding, whatever v is. It moves a pair, packed along
    channels as (x, y), so it is not among `SOLVERS`, which move one state; velocities are asked of one at a time.

    Args:
        p: Mixing that keeps the pair together, in (0, 1]. Undoing it divides by p, and rounding grows with p**-steps:
            keep the pair in float32 or better.

    Source: Wallace et al., "EDICT: Exact Diffusion Inversion via Coupled Transformations" (CVPR 2023),
    arXiv:2211.12446, in flow form. Their release also lets the two take turns in going first.
    """

    p: float
    order = 1
    evals_per_step = 2

    def __post_init__(self) -> None:
        check_number("p", self.p, 0, 1, above=True)

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> None:
        return None

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: None) -> tuple[Tensor, None]:
        (x, y), p, dt = latents.chunk(2, dim=1), self.p, t1 - t0
        if dt < 0:
            x = x + dt * velocity(y, t0)
            y = y + dt * velocity(x, t0)
            x = p * x + (1 - p) * y
            y = p * y + (1 - p) * x
        else:
            y = (y - (1 - p) * x) / p
            x = (x - (1 - p) * y) / p
            y = y + dt * velocity(x, t1)
            x = x + dt * velocity(y, t1)
        return torch.cat([x, y], dim=1), None
