"""From Stable Flow's settings to what is held of a source, and how strongly row by row."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from stableflow.editing.dial import brings_strengths, refuse_strengths, weights_by_row
from stableflow.editing.policy import Hold, Policy, dialled, make_policy, weakened
from stableflow.editing.presets import SpeedPreset
from stableflow.editing.recipe import as_json
from stableflow.editing.run import Run
from stableflow.flow.schedule import ALWAYS, Schedule
from stableflow.interventions.blend import Blend
from stableflow.vital.presets import VitalSet


def plan_of(
    run: Run,
    layers: tuple[int, ...],
    weight: Schedule,
    *,
    strength: float | None,
    policy: str | Policy | Mapping[str, Any] | None,
) -> Policy:
    """Return what a run's edits hold: what the policy says, else what follows from strength, else the layers.

    Args:
        layers: Where keys and values are injected; with a region, outside it, and in all layers unless a caller named
            them.
        weight: By flow time.
        strength: Of the dial, in all layers, inside the region if there is one; edits may bring their own.
    """
    within = run.region is not None
    if policy is not None:
        refuse_strengths(run, "a policy")
        chosen = make_policy(policy)
        return chosen if strength is None else weakened(chosen, strength, within=within)
    outside = Hold("all" if isinstance(layers, VitalSet) else layers, where="outside", weight=weight)
    if brings_strengths(run):
        return dialled(0.0, within=within, outside=outside)  # by row: see blend_by_row
    if strength is not None:
        return dialled(strength, within=within, outside=outside)
    return Policy((outside,), pin=ALWAYS) if within else Policy((Hold(layers, weight=weight),))


def blend_by_row(
    run: Run, hold: Hold, strength: float | None, token_mask: Float[Tensor, "*edits rows columns"] | None
) -> Blend | None:
    """Return how strongly and where something is held where rows or tokens differ in it; None where a region says."""
    if brings_strengths(run) and hold.where != "outside":
        weights = weights_by_row(run, strength)
        return Blend(hold.weight, weights if token_mask is None else weights * token_mask)
    if hold.where == "everywhere" or run.region is None:
        return Blend(hold.weight, token_mask, low=hold.band == "low")
    return None


def told(run: Run, plan: Policy, speed: SpeedPreset, spared: Collection[float]) -> dict[str, Any]:
    """Return what recipes say of a plan: what was held, how it was kept, and how many passes were spared."""
    store = run.source.store
    return {
        "held": as_json(plan),
        "keep": "share" if store is None else "recorded",
        "kv_precision": None if store is None else store.precision,
        "preset": dataclasses.asdict(speed),
        "spared_passes": len(spared),
    }
