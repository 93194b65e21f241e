"""The explicit midpoint rule, to which RF-Solver's second-order update reduces."""

from dataclasses import dataclass

from torch import Tensor

from stableflow.flow.solvers.base import SOLVERS
from stableflow.types import Velocity


@SOLVERS.register("midpoint")
@dataclass(frozen=True)
class Midpoint:
    """z_{t1} = z_{t0} + (t1 - t0) v(z_m, t_m) with z_m = z_{t0} + (t_m - t0) v(z_{t0}, t0), t_m halfway.

    Source: Wang et al., "Taming Rectified Flow for Inversion and Editing" (RF-Solver), arXiv:2411.04746; its
    Taylor step with a finite-difference derivative is algebraically this rule.
    """

    order = 2
    evals_per_step = 2

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> None:
        return None

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: None) -> tuple[Tensor, None]:
        t_mid = (t0 + t1) / 2
        midpoint = latents + (t_mid - t0) * velocity(latents, t0)
        return latents + (t1 - t0) * velocity(midpoint, t_mid), None
