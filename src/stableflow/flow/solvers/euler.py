"""Explicit Euler, the sampler of diffusers' flow-matching pipelines."""

from dataclasses import dataclass

from torch import Tensor

from stableflow.flow.solvers.base import SOLVERS
from stableflow.types import Velocity


@SOLVERS.register("euler")
@dataclass(frozen=True)
class Euler:
    """z_{t1} = z_{t0} + (t1 - t0) v(z_{t0}, t0)."""

    order = 1
    evals_per_step = 1

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> None:
        return None

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: None) -> tuple[Tensor, None]:
        return latents + (t1 - t0) * velocity(latents, t0), None
