"""Implicit Euler by fixed-point iteration; one iteration is the inversion step of Stable Flow."""

from dataclasses import dataclass

from torch import Tensor

from stableflow.checks import MOST_STEPS, check_count
from stableflow.flow.solvers.base import SOLVERS
from stableflow.types import Velocity


@SOLVERS.register("fixed_point")
@dataclass(frozen=True)
class FixedPoint:
    """z_{t1} = z_{t0} + (t1 - t0) v(z_{t1}, t1), solved by `iterations` substitutions starting at z_{t0}.

    With one iteration the velocity is v(z_{t0}, t1): the state one comes from at the time one goes to.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, inversion (one iteration).
    """

    iterations: int = 1
    order = 1

    def __post_init__(self) -> None:
        check_count("iterations", self.iterations, 1, MOST_STEPS)

    @property
    def evals_per_step(self) -> int:
        return self.iterations

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> None:
        return None

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: None) -> tuple[Tensor, None]:
        target = latents
        for _ in range(self.iterations):
            target = latents + (t1 - t0) * velocity(target, t1)
        return target, None
