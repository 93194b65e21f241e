"""Named choices between speed and fidelity."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stableflow.checks import check_choice, check_count, check_fields, check_number, check_steps
from stableflow.errors import InputError, UnknownNameError
from stableflow.flow.solvers import make_solver
from stableflow.interventions.store import Precision


@dataclass(frozen=True)
class SpeedPreset:
    """How pictures are inverted, and what their edits leave out; docs/concepts/speed.md has the measured loss.

    Args:
        name: What recipes call it.
        solver, inversion: Of the inversion, as for `StableFlow.invert`.
        num_steps: Of the inversion and of its edits.
        kv_precision: Of the source's keys and values, "exact" or "fp8".
        reuse_every: Edits run layers without injection in every n-th pass only, and reuse what they added; 1 runs all.
        reuse_tolerance: They also do without these layers where the source's own velocity moved less than this share
            since it was last computed; 0 runs all.
    """

    name: str
    solver: Mapping[str, Any] = field(default_factory=lambda: {"name": "fixed_point", "iterations": 1})
    inversion: Literal["aligned", "paper"] = "aligned"
    num_steps: int = 50
    kv_precision: Precision = "exact"
    reuse_every: int = 1
    reuse_tolerance: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        make_solver(self.solver)
        check_steps("num_steps", self.num_steps)
        check_count("reuse_every", self.reuse_every)
        check_number("reuse_tolerance", self.reuse_tolerance, 0)

    def describe(self) -> dict[str, Any]:
        """Return the preset as JSON values."""
        return dataclasses.asdict(self)


# One iteration of few steps leaves large offsets of aligned replay, which hold the edits too near the source.
PRESETS = {
    "exact": SpeedPreset("exact"),
    "balanced": SpeedPreset("balanced", solver={"name": "fixed_point", "iterations": 2}, num_steps=20),
    "fast": SpeedPreset("fast", solver={"name": "fixed_point", "iterations": 3}, num_steps=8),
}


def make_preset(preset: str | SpeedPreset | Mapping[str, Any]) -> SpeedPreset:
    """Return the preset itself, the one of this name, or the one that `describe` described.

    Raises:
        UnknownNameError: No preset has this name.
        InputError: The description is of another version.
    """
    if isinstance(preset, SpeedPreset):
        return preset
    if isinstance(preset, Mapping):
        try:
            return SpeedPreset(**preset)
        except (TypeError, InputError, UnknownNameError) as error:
            raise InputError(f"The preset of this run is of another version: {error}") from error
    check_choice("preset", preset, PRESETS)
    return PRESETS[preset]
