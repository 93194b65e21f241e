"""What is held of a source, where and when: data, not code."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from stableflow.checks import check_choice, check_count, check_flag
from stableflow.editing.dial import dial_weight
from stableflow.errors import InputError
from stableflow.flow.schedule import ALWAYS, NEVER, Schedule, as_schedule
from stableflow.interventions.parts import check_parts
from stableflow.models.base import PARTS, Part
from stableflow.reading import short


@dataclass(frozen=True)
class Hold:
    """One thing that edits read of their source instead of making it themselves.

    Args:
        layers: A set by name ("vital", "all"), or numbers in execution order.
        parts: Keys, values, or both.
        where: "everywhere", or "inside" or "outside" the edit's region.
        weight: 1 replaces, 0 leaves alone, by flow time.
        band: "low" takes what the source shows without how it looks: `interventions.blend.low_band`.
    """

    layers: str | tuple[int, ...] = "vital"
    parts: tuple[Part, ...] = PARTS
    where: Literal["everywhere", "inside", "outside"] = "everywhere"
    weight: Schedule = ALWAYS
    band: Literal["all", "low"] = "all"

    def __post_init__(self) -> None:
        check_parts(self.parts)
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "weight", as_schedule(self.weight, "weight"))
        if not isinstance(self.layers, str) or self.layers not in ("vital", "all"):
            if not isinstance(self.layers, (list, tuple)):
                raise InputError(f"layers must be 'vital', 'all' or layer numbers, got {short(self.layers)}.")
            numbers = tuple(check_count(f"layers[{i}]", layer, 0) for i, layer in enumerate(self.layers))
            object.__setattr__(self, "layers", numbers)
        check_choice("band", self.band, ["all", "low"])
        check_choice("place to hold (where)", self.where, ["everywhere", "inside", "outside"])
        if not all(0.0 <= value <= 1.0 for value in self.weight.values):
            raise InputError(f"weight must lie in [0, 1] (1 injects fully), got {self.weight}.")


@dataclass(frozen=True)
class Policy:
    """What an edit keeps of its source and what it lets go.

    Args:
        hold: Keys and values that are read from the source.
        pin: How far latents outside the region are put back on the source's path after a step, 0 to 1, by flow time.
        edge: Whether tokens that lie half inside the region are free, or held.
        fine: Whether the region frees latents by latent pixels, and keys and values alone by whole tokens.
    """

    hold: tuple[Hold, ...] = ()
    pin: Schedule = NEVER
    edge: Literal["free", "held"] = "free"
    fine: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pin", as_schedule(self.pin, "pin"))
        if not isinstance(self.hold, (list, tuple)) or not all(isinstance(hold, Hold) for hold in self.hold):
            raise InputError(f"hold must be a list of Hold(...), got {short(self.hold)}.")
        object.__setattr__(self, "hold", tuple(self.hold))
        check_choice("edge of the region", self.edge, ["free", "held"])
        if not all(0.0 <= value <= 1.0 for value in self.pin.values):
            raise InputError(f"pin must lie in [0, 1] (1 follows the source), got {self.pin}.")


POLICIES: dict[str, Policy] = {
    "keep": Policy((Hold("vital"),)),
    "free": Policy(),
    "region": Policy((Hold("all", where="outside"),), pin=ALWAYS, fine=True),
    "background": Policy((Hold("all", where="outside"),), edge="held"),
    "look": Policy((Hold("all", parts=("key",)),)),
    "restyle": Policy((Hold("all", parts=("key",)), Hold("all", parts=("value",), band="low"))),
    "freeflux-pose": Policy((Hold((0, 7, 8, 9, 10, 18, 25, 28, 37, 42, 45, 50, 56)),)),
    "freeflux-add": Policy((Hold((1, 2, 4, 26, 30, 54, 55)),)),
    "freeflux-background": Policy((Hold("all", ("value",), "outside", Schedule.window(0.3, 1.0)),)),
}
"""By name: the paper's injection, none, all layers outside a region with the region's own tokens free, the same
without putting latents back, for what stands before another background, keys alone, for another look,
and keys with the low band of values, for the look of another picture.

The last three are FreeFlux's (Wei et al., ICCV 2025, arXiv:2503.16153), by the layers of its release: those of FLUX.1's
57 that go by content let a pose change, those that go by position let a thing be added; values alone hold what stands
before another background, through 45 of 50 steps at 1024 pixels. Other models refuse the first two."""

OUTSIDE = Hold("all", where="outside")


def dialled(strength: float, *, within: bool, outside: Hold = OUTSIDE) -> Policy:
    """Return what strength holds: all layers with `dial_weight`, inside the region if there is one.

    Args:
        strength: In [0, 1]; 1 is free.
        within: Whether there is a region.
        outside: What is held outside of it.
    """
    dial = Schedule.constant(dial_weight(strength))
    return (
        Policy((outside, Hold("all", where="inside", weight=dial)), ALWAYS)
        if within
        else Policy((Hold("all", weight=dial),))
    )


def weakened(policy: Policy, strength: float, *, within: bool) -> Policy:
    """Return a policy that holds all layers too, with `dial_weight`, where it lets the edit go."""
    more = Hold("all", where="inside" if within else "everywhere", weight=Schedule.constant(dial_weight(strength)))
    return replace(policy, hold=(*policy.hold, more))


def make_policy(policy: str | Policy | Mapping[str, Any]) -> Policy:
    """Return the policy itself, the one of this name, or the one that a recipe describes.

    Raises:
        UnknownNameError: No policy has this name.
        InputError: A value is out of place.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Mapping):
        return _from_json(policy)
    check_choice("policy", policy, POLICIES)
    return POLICIES[policy]


def _from_json(values: Mapping[str, Any]) -> Policy:
    try:
        if not values:
            raise ValueError("it is empty")
        unknown = set(values) - {"hold", "pin", "edge", "fine"}
        if unknown:
            raise ValueError(f"it has no {short(sorted(map(str, unknown)))}")
        holds = [dict(hold) for hold in values.get("hold", ())]
        for hold in holds:
            hold |= {name: tuple(hold[name]) for name in ("layers", "parts") if isinstance(hold.get(name), list)}
            hold["weight"] = as_schedule(hold.get("weight", 1.0))
        pin, edge = as_schedule(values.get("pin", 0.0)), values.get("edge", "free")
        fine = check_flag("fine", values.get("fine", False))
        return Policy(tuple(Hold(**hold) for hold in holds), pin, edge, fine)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"This is no policy: {error}. It has hold (layers, parts, where, weight), pin and edge."
        ) from error
