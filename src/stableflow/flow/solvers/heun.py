"""Heun's method: Euler, then the mean of the velocities at both ends."""

from dataclasses import dataclass

from torch import Tensor

from stableflow.flow.solvers.base import SOLVERS
from stableflow.types import Velocity


@SOLVERS.register("heun")
@dataclass(frozen=True)
class Heun:
    """z_{t1} = z_{t0} + (t1 - t0) (v(z_{t0}, t0) + v(z', t1)) / 2 with z' the Euler step."""

    order = 2
    evals_per_step = 2

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> None:
        return None

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: None) -> tuple[Tensor, None]:
        start = velocity(latents, t0)
        end = velocity(latents + (t1 - t0) * start, t1)
        return latents + (t1 - t0) * (start + end) / 2, None
