"""Uni-Inv: implicit Euler by one substitution, at a state foretold by the last velocity."""

from dataclasses import dataclass

from torch import Tensor

from stableflow.flow.solvers.base import SOLVERS
from stableflow.types import Velocity


@SOLVERS.register("uni_inv")
@dataclass(frozen=True)
class UniInv:
    """z_{t1} = z_{t0} + (t1 - t0) v(z_{t0} + (t1 - t0) v', t1), where v' is the velocity of the step before.

    To the noise this undoes Euler's step back with a local error of third order, at one evaluation a step and one at
    the start.

    Source: Jiao et al., "UniEdit-Flow" (ICLR 2026), arXiv:2504.13109, Uni-Inv.
    """

    order = 1
    evals_per_step = 1

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> Tensor:
        return velocity(latents, t0)

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        foretold = velocity(latents + (t1 - t0) * state, t1)
        return latents + (t1 - t0) * foretold, foretold
