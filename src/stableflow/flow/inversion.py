"""From image latents to noise, and back along the very same path."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, StepRecord, integrate
from stableflow.flow.solvers.base import Solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.types import Latents, Velocity


def nudge(latents: Latents, scale: float = 1.15) -> Latents:
    """Scale image latents before inversion, so that the edit can leave the source.

    Args:
        latents: Image latents at t = 0, after the model's shift and scale.
        scale: Positive factor; 1 changes nothing. Larger frees the edit and costs fidelity.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, latent nudging. The paper's release
    never undoes the factor; here `unnudge` does, so that source and edits keep their contrast.
    """
    if not scale > 0:
        raise InputError(f"nudge_scale must be a positive number (the paper uses 1.15), got {scale}.")
    return latents * scale


def unnudge(latents: Latents, scale: float = 1.15) -> Latents:
    """Undo `nudge` on latents at t = 0."""
    return latents / scale


@dataclass(frozen=True)
class Inversion:
    """A recorded way from image to noise.

    Args:
        trajectory: The state at every time of the grid.
        offsets: For every time t at which the velocity was evaluated, the last point of evaluation minus the
            state at t. What aligned replay adds before it asks for the velocity.
    """

    trajectory: Trajectory
    offsets: Mapping[float, Tensor]


def invert(
    velocity: Velocity, latents: Latents, grid: TimeGrid, solver: Solver, *, callback: Callback | None = None
) -> Inversion:
    """Integrate from image (t = 0) to noise (t = 1), keeping every state and where v was evaluated.

    Args:
        grid: The grid of the later sampling, from noise to image; it is walked backwards.
        solver: `FixedPoint()` is the paper's step.

    Returns:
        States and offsets, float32: two tensors of the latents' size a step.
    """
    trajectory, evaluated = Trajectory(), dict[float, Tensor]()

    def watched(latents: Tensor, t: float) -> Tensor:
        evaluated[t] = latents
        return velocity(latents, t)

    def keep(record: StepRecord) -> None:
        trajectory.put(record.t1, record.latents)
        if callback is not None:
            callback(record)

    backwards = grid.reversed()
    trajectory.put(backwards.times[0], latents)
    integrate(watched, latents, backwards, solver, callback=keep)
    offsets = {t: evaluated[t] - trajectory.at(t) for t in trajectory.times if t in evaluated}
    return Inversion(trajectory, offsets)


@dataclass(frozen=True)
class AlignedReplay:
    """z_{t1} = z_{t0} + (t1 - t0) v(z_{t0} + d, t0): v is evaluated where the inversion evaluated it.

    For the inversion step z_{t0} = z_{t1} + (t0 - t1) v(e, t0) with evaluation point e and d = e - z_{t0}, the source
    retraces its path exactly (to rounding) at one evaluation a step, and the keys and values it has on the way are
    those of the inversion. Edited rows are moved by the same d.

    Args:
        offsets: d by time, from an inversion with `FixedPoint` (any number of iterations).
    """

    offsets: Mapping[float, Tensor]
    order = 1
    evals_per_step = 1

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> None:
        return None

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: None) -> tuple[Tensor, None]:
        return latents + (t1 - t0) * velocity(latents + self.offsets[t0], t0), None


@dataclass(frozen=True)
class Anchored:
    """Another solver, after each of whose steps row 0 is put back on a recorded path.

    The paper's treatment of real images: the source follows its inversion while the edits move freely. The state
    after the step t0 -> t1 is the recorded state at t1, looked up by time.
    """

    solver: Solver
    trajectory: Trajectory

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def evals_per_step(self) -> int:
        return self.solver.evals_per_step

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> Any:
        return self.solver.init(velocity, t0, latents)

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        moved, state = self.solver.step(velocity, t0, t1, latents, state)
        return torch.cat([self.trajectory.at(t1).to(moved), moved[1:]]), state
