"""Which solver and which guidance the passes of a source and of its edits use."""

import math
import warnings
from collections.abc import Sequence

from stableflow.editing.source import Source
from stableflow.errors import InputError, unknown_name
from stableflow.flow.inversion import AlignedReplay, Anchored
from stableflow.flow.solvers import Euler, FixedPoint, Solver, make_solver


def check_inversion(inversion: str, solver: Solver) -> None:
    """Raise unless this way of inverting exists and goes with the solver."""
    if inversion not in ("aligned", "paper"):
        raise unknown_name("inversion", inversion, ["aligned", "paper"])
    if inversion == "aligned" and not isinstance(solver, FixedPoint):
        raise InputError(
            f"Aligned replay retraces steps of the fixed-point solver, not of {type(solver).__name__}. Use "
            "solver='fixed_point', or inversion='paper' with this solver."
        )


def sampler_of(solver: Solver) -> Solver:
    """The solver that goes back from the noise: the paper inverts by a fixed-point step and samples by Euler."""
    return Euler() if isinstance(solver, FixedPoint) else solver


def edit_solver(source: Source) -> Solver:
    """Return what moves the edits of a source from noise to image."""
    solver = make_solver(source.fingerprint.solver)
    if source.fingerprint.inversion is None:
        return solver
    if source.fingerprint.inversion == "aligned":
        return AlignedReplay(source.offsets)
    solver = sampler_of(solver)
    return Anchored(solver, source.trajectory) if source.store is None else solver


def replay_solver(source: Source) -> Solver:
    """Return what moves the source itself from noise to image again, along its own path."""
    if source.fingerprint.inversion == "paper":
        return Anchored(sampler_of(make_solver(source.fingerprint.solver)), source.trajectory)
    return edit_solver(source)


def checked_guidance(scale: float | None, default: float | None) -> float | None:
    """Return the scale to use; `default` is the model's own, None where it takes none."""
    if default is None:
        if scale not in (None, 0.0, 1.0):
            warnings.warn(f"This model takes no guidance scale; {scale} has no effect.", stacklevel=3)
        return None
    scale = default if scale is None else float(scale)
    if not (math.isfinite(scale) and scale >= 0):
        raise InputError(f"guidance_scale must be a finite number of 0 or more, got {scale}.")
    return scale


def guidance_rows(scale: float | Sequence[float] | None, default: float | None, rows: int) -> list[float] | None:
    """Return one scale for each edit."""
    if default is None:
        return None
    scales = list(scale) if isinstance(scale, Sequence) else [scale] * rows
    if len(scales) != rows:
        raise InputError(f"guidance_scale has {len(scales)} values for {rows} edit(s); pass one, or one an edit.")
    return [float(checked_guidance(value, default) or 0.0) for value in scales]
