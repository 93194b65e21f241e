"""FireFlow: the midpoint rule at the price of Euler."""

from dataclasses import dataclass

from torch import Tensor

from stableflow.flow.solvers.base import SOLVERS
from stableflow.types import Velocity


@SOLVERS.register("fireflow")
@dataclass(frozen=True)
class FireFlow:
    """The midpoint rule with v(z_{t0}, t0) replaced by the velocity of the previous midpoint.

    Second order at one evaluation a step, plus one at the start.

    Source: Deng et al., "FireFlow: Fast Inversion of Rectified Flow for Image Semantic Editing",
    arXiv:2412.07517.
    """

    order = 2
    evals_per_step = 1

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> Tensor:
        return velocity(latents, t0)

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        t_mid = (t0 + t1) / 2
        mid_velocity = velocity(latents + (t_mid - t0) * state, t_mid)
        return latents + (t1 - t0) * mid_velocity, mid_velocity
