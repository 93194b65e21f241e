"""Which image tokens an edit computes: the region's alone, where all others are known to be the source's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stableflow.editing.policy import Policy
from stableflow.editing.run import Run
from stableflow.flow.inversion import AlignedReplay
from stableflow.flow.schedule import Schedule
from stableflow.flow.solvers import Euler, Solver
from stableflow.interventions.leave_out import divide
from stableflow.models.base import PARTS, LeavesOut
from stableflow.vital.presets import resolve_layers

Compute = Literal["auto", "region", "all"]
"""Which image tokens edits compute: "region" the region's alone, reading keys and values of the others from the source
(the same edit, to rounding, at a share of the cost; refused where it would be another), "auto" wherever that is the
same and pays; the recipe's "computed" says what was done and why."""
COMPUTE = ("auto", "region", "all")
WORTH = 0.75  # of the tokens; above it what is saved is spent on reading the others


@dataclass(frozen=True)
class Computed:
    """What an edit's passes compute.

    Args:
        tokens: Image tokens, of one row.
        of: All of them.
        why: Why all of them; None where only the region's are computed.
        kept: Bytes of the source's keys and values, and where they are; None where none are kept.
    """

    tokens: int
    of: int
    why: str | None
    kept: tuple[int, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for recipes."""
        kept = None if self.kept is None else {"bytes": self.kept[0], "on": self.kept[1]}
        return {"image_tokens": self.tokens, "of": self.of, "why_all": self.why, "keys_and_values": kept}


def told(computed: Mapping[str, Any]) -> str:
    """Return what a recipe says of it, in one line."""
    kept, why = computed["keys_and_values"], computed["why_all"]
    memory = "" if kept is None else f"; keys and values: {kept['bytes'] / 1e6:.1f} MB on {kept['on']}"
    because = "" if why is None else f": {why}"
    return f"computed {computed['image_tokens']} of {computed['of']} image tokens a pass{because}{memory}"


def region_tokens(run: Run) -> tuple[int, int]:
    """Return how many image tokens the region touches in any row, and how many there are."""
    made, side = run.source.fingerprint, run.model.pixel_multiple
    rows, columns = made.height // side, made.width // side
    if run.region is None:
        return rows * columns, rows * columns
    return len(divide(run.whole_region, (rows, columns)).computed), rows * columns


def why_all(run: Run, plan: Policy, solver: Solver) -> str | None:
    """Return why tokens outside the region must be computed; None where the source tells all that is read of them.

    It does where, in every layer and at every time, their keys and values are the source's, and their latents are put
    back on its path after every step.
    """
    model = run.model
    if run.region is None:
        return "there is no region"
    if not any(_replaces_outside(run, hold) for hold in plan.hold):
        return "not all layers are held outside the region, at full weight and at all times"
    if any(hold.band == "low" for hold in plan.hold):
        return "a low band is held, which is made of neighbouring tokens"
    if not _is_one(plan.pin):
        return "latents outside the region are not put back on the source's path after every step"
    if run.source.store is None:
        return "keys and values of the source are not kept, it runs beside its edits (kv_memory)"
    if not isinstance(model, LeavesOut):
        return f"{model.name!r} cannot leave tokens out of a pass"
    inside, every = region_tokens(run)
    if not 0 < inside < every:
        return f"the region touches {inside} of {every} image tokens"
    return model.why_whole(states_on_path=isinstance(solver, Euler | AlignedReplay))


def _replaces_outside(run: Run, hold: Any) -> bool:
    layers = set(resolve_layers(run.model, hold.layers))
    everything = layers == set(range(len(run.model.layers))) and set(hold.parts) == set(PARTS)
    return hold.band == "all" and everything and hold.where in ("outside", "everywhere") and _is_one(hold.weight)


def _is_one(schedule: Schedule) -> bool:
    return set(schedule.values) == {1.0}
