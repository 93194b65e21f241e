"""One way of a source between noise and image, recorded: what edits start from, are held to, and read."""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stableflow.checks import LARGEST_GUIDANCE, check_choice, check_number
from stableflow.editing.fingerprint import Fingerprint
from stableflow.errors import InputError
from stableflow.flow.inversion import AlignedReplay, Anchored
from stableflow.flow.solvers import Euler, FixedPoint, Solver, UniInv, make_solver
from stableflow.flow.trajectory import Trajectory
from stableflow.interventions.store import KVStore
from stableflow.types import Latents

LARGEST_NUDGE = 100.0


@dataclass(frozen=True, eq=False)
class Path:
    """The states of a source by flow time, and what its passes left.

    Args:
        trajectory: Its states, float32, (1, channels, latent_height, latent_width).
        offsets: What aligned replay adds at each time; empty where the path is not replayed that way.
        store: Its image keys and values; None where none were kept.
    """

    trajectory: Trajectory
    offsets: Mapping[float, Tensor] = field(default_factory=dict)
    store: KVStore | None = None

    def at(self, t: float) -> Latents:
        """Return the state at exactly time t."""
        return self.trajectory.at(t)

    def to(self, device: torch.device | str) -> "Path":
        """Return the path with its states on a device; keys and values stay where they are."""
        offsets = {t: offset.to(device) for t, offset in self.offsets.items()}
        return dataclasses.replace(self, trajectory=self.trajectory.to(device), offsets=offsets)


def check_inversion(inversion: str, solver: Solver) -> None:
    """Raise unless this way of inverting exists and goes with the solver."""
    check_choice("inversion", inversion, ["aligned", "paper"])
    if inversion == "aligned" and not isinstance(solver, FixedPoint):
        raise InputError(
            f"Aligned replay retraces steps of the fixed-point solver, not of {type(solver).__name__}. Use "
            "solver='fixed_point', or inversion='paper' with this solver."
        )


def check_nudge(scale: float) -> float:
    """Return a factor of nudging that latents can be brought back from."""
    return check_number("nudge_scale", scale, 0, LARGEST_NUDGE, above=True, hint="The paper uses 1.15.")


def check_range(latents: Latents, dtype: torch.dtype, scale: float) -> None:
    """Raise InputError unless nudged latents fit the numbers that the model computes in."""
    largest, most = float(latents.abs().max()), torch.finfo(dtype).max
    if not largest <= most:
        raise InputError(
            f"nudge_scale {scale:g} takes the picture's latents to {largest:.3g}, and {dtype} holds up to {most:.3g}. "
            "Use a smaller one (the paper's is 1.15), or load the model in bfloat16 or float32."
        )


def sampler_of(solver: Solver) -> Solver:
    """The solver that goes back from the noise: Euler's step is what the implicit ones undo."""
    return Euler() if isinstance(solver, FixedPoint | UniInv) else solver


def edit_solver(made: Fingerprint, path: Path, *, shared: bool) -> Solver:
    """Return what moves edits from noise to image as the source moved.

    Args:
        made: How the path was made.
        shared: The source is row 0 of the edits' batch.
    """
    solver = make_solver(made.solver)
    if made.inversion is None:
        return solver
    if made.inversion == "aligned":
        return AlignedReplay(path.offsets)
    solver = sampler_of(solver)
    return Anchored(solver, path.trajectory) if shared else solver


def replay_solver(made: Fingerprint, path: Path) -> Solver:
    """Return what moves the source itself from noise to image again, along its own path."""
    return edit_solver(made, path, shared=True)


def checked_guidance(scale: float | None, default: float | None) -> float | None:
    """Return the scale to use; `default` is the model's own, None where it takes none."""
    if scale is not None:
        scale = check_number("guidance_scale", scale, 0, LARGEST_GUIDANCE)
    if default is None:
        if scale not in (None, 0.0, 1.0):
            warnings.warn(f"This model takes no guidance scale; {scale} has no effect.", stacklevel=3)
        return None
    return default if scale is None else scale
