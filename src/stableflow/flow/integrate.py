"""The one loop over steps, and solvers in it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.errors import NumericsError
from stableflow.flow.solvers.base import Solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents, Velocity


@dataclass(frozen=True)
class StepRecord:
    """What a callback sees after a step from `t0` to `t1`."""

    index: int
    num_steps: int
    t0: float
    t1: float
    latents: Tensor
    previous: Tensor

    def estimate(self) -> Tensor:
        """Return the image latents that the last step points at: z_0 = z_{t1} - t1 v."""
        velocity = (self.latents - self.previous) / (self.t1 - self.t0)
        return self.latents - self.t1 * velocity


Callback = Callable[[StepRecord], None]


Step = Callable[[Tensor, float, float], Tensor]
"""One step: (latents at t0, t0, t1) -> latents at t1."""


def walk(step: Step, latents: Latents, grid: TimeGrid, *, callback: Callback | None = None) -> Latents:
    """Take one step after another along the grid: the only loop over flow times.

    Args:
        step: From the state at t0 to the one at t1.
        latents: State at the grid's first time. Kept in float32 throughout; what a step computes may be in less.
        grid: Times to visit; falling times sample, rising times invert.
        callback: Told of every finished step; it sees and cannot steer. What it raises ends the walk at once.

    Returns:
        The state at the grid's last time, float32.

    Raises:
        NumericsError: A step produced NaN or infinity; names the step and the time.
    """
    latents = latents.to(torch.float32)
    for index, (t0, t1) in enumerate(grid.steps()):
        previous = latents
        latents = step(latents, t0, t1)
        _require_finite(latents, index, grid.num_steps, t0, t1)
        if callback is not None:
            callback(StepRecord(index, grid.num_steps, t0, t1, latents, previous))
    return latents


def integrate(
    velocity: Velocity, latents: Latents, grid: TimeGrid, solver: Solver, *, callback: Callback | None = None
) -> Latents:
    """Solve dz/dt = v(z, t) along the grid; see `walk`.

    Args:
        velocity: The field v.
        solver: The update rule.
    """
    state = solver.init(velocity, grid.times[0], latents.to(torch.float32))

    def step(latents: Tensor, t0: float, t1: float) -> Tensor:
        nonlocal state
        latents, state = solver.step(velocity, t0, t1, latents, state)
        return latents

    return walk(step, latents, grid, callback=callback)


def count_evaluations(solver: Solver, grid: TimeGrid) -> int:
    """Return how often a solver evaluates v along a grid, its start included."""
    evaluations = 0

    def counted(latents: Tensor, t: float) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return torch.zeros_like(latents)

    integrate(counted, torch.zeros(1, 1, 1, 1), grid, solver)
    return evaluations


def _require_finite(latents: Tensor, index: int, num_steps: int, t0: float, t1: float) -> None:
    if not bool(torch.isfinite(latents).all()):
        raise NumericsError(
            f"Step {index + 1} of {num_steps} (t = {t0:.4f} -> {t1:.4f}) produced NaN or infinite latents. "
            "float16 overflows in FLUX-like transformers: load the model with dtype=bfloat16 or float32."
        )
