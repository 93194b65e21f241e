"""Stable Flow: source and edits from one noise, the source's keys and values injected in chosen layers.

Source: Avrahami et al., "Stable Flow: Vital Layers for Training-Free Image Editing" (CVPR 2025), arXiv:2411.14430.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from stableflow.checks import LARGEST_GUIDANCE, check_choice, check_number
from stableflow.editing.apart import pushed
from stableflow.editing.base import editor
from stableflow.editing.computing import COMPUTE, Compute
from stableflow.editing.dial import brings_strengths, refuse_strengths, weights_by_row
from stableflow.editing.fingerprint import digest
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.memory import KVMemory
from stableflow.editing.policy import Hold, Policy, dialled, make_policy, weakened
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.recipe import as_json
from stableflow.editing.run import Run
from stableflow.flow.schedule import ALWAYS, Schedule, as_schedule, as_window
from stableflow.flow.skipping import every_nth, steady_times
from stableflow.interventions import ReuseResidual
from stableflow.interventions.blend import WHOLE_FLOW, Blend
from stableflow.models.base import Intervention
from stableflow.types import Latents
from stableflow.vital.presets import VITAL, VitalSet, resolve_layers


@editor("stable-flow", paper="arXiv:2411.14430", good_for="edits that keep what is not named; with a region, exactly")
@dataclass(frozen=True, kw_only=True)
class StableFlow(Holding):
    """The editor.

    Args:
        strength: Keys and values of all layers are held with the weight of `dial_weight`, instead of the settings
            below, or beside a policy; inside the region if there is one. `Edit` may bring its own.
        layers: Where keys and values are injected: "vital" for the preset of this checkpoint, "all", or layer numbers.
            With a region, outside it, and then in all layers unless numbers are given.
        weight: 1 replaces the edits' keys and values, 0 leaves them alone; a number, or a `Schedule` over flow time.
        t_window: Flow times (low, high) in which to inject; 1 is noise. (0.4, 1) is early only.
        token_mask: Where to inject, in [0, 1] for each image token, (token_rows, token_columns) or one such map an
            edit; everywhere by default. A region says the same in pixels.
        policy: What is held, instead of what follows from the settings above: a name in `POLICIES`, or a `Policy`.
        kv_memory: What becomes of the source's keys and values. "device" keeps them beside the model, "cpu" in main
            memory, "disk" in temporary files, "share" keeps nothing and runs the source's row again with every edit;
            "auto" takes the first of these for which memory is free, but never the disk. `keep` is its old name.
        preset: "exact", "balanced" or "fast": how real pictures are inverted unless `invert` is told otherwise, in
            which precision keys and values are kept, and what edits leave out.
        compute: "region" computes the region's image tokens alone and reads keys and values of the others from the
            source; the same edit, to rounding, at a share of the cost. Refused where it would be another edit. "auto"
            does so wherever it is the same and pays; the recipe's "computed" says what was done and why. "all" never.
        away: How far edits are led away from what the source's prompt says, inside the region; one more row an edit.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> source = editor.generate("a dog standing on the grass", seed=1)
        >>> editor.edit(source, ["a dog sitting on the grass"]).images.shape
        torch.Size([1, 3, 64, 64])
    """

    strength_each: ClassVar[bool] = True

    layers: str | Sequence[int] = VITAL
    weight: float | str | Schedule | Sequence[Sequence[float]] = 1.0
    t_window: Sequence[float] = WHOLE_FLOW
    token_mask: Float[Tensor, "*edits token_rows token_columns"] | None = None
    policy: str | Policy | Mapping[str, Any] | None = None
    kv_memory: KVMemory = "auto"
    preset: str | SpeedPreset | Mapping[str, Any] = "exact"
    compute: Compute = "auto"
    away: float = 0.0
    keep: InitVar[KVMemory | None] = None

    def __post_init__(self, keep: KVMemory | None) -> None:
        super().__post_init__()
        if keep is not None:
            warnings.warn("StableFlow(keep=) is called kv_memory= now; the old name goes next version.", stacklevel=3)
            object.__setattr__(self, "kv_memory", keep)
        object.__setattr__(self, "layers", resolve_layers(self.model, self.layers))
        object.__setattr__(self, "preset", make_preset(self.preset))
        if self.policy is not None:
            object.__setattr__(self, "policy", make_policy(self.policy))
        check_choice("compute", self.compute, COMPUTE)
        check_number("away", self.away, 0, LARGEST_GUIDANCE)
        checked = Blend(as_schedule(self.weight, "weight").within(*as_window(self.t_window)), self.token_mask)
        object.__setattr__(self, "token_mask", checked.token_mask)

    @property
    def chosen_layers(self) -> tuple[int, ...]:
        """The layers by number."""
        return resolve_layers(self.model, self.layers)

    def speed(self) -> SpeedPreset:
        return make_preset(self.preset)

    def layers_within(self) -> tuple[int, ...]:
        explicit = self.policy is None and not isinstance(self.layers, VitalSet)
        return self.chosen_layers if explicit else super().layers_within()

    def computes(self) -> Compute:
        return self.compute

    def recording(self) -> Recording:
        return Recording(self.chosen_layers, self.kv_memory, self.speed().kv_precision)

    def plan(self, run: Run) -> Policy:
        """Return what this run's edits hold of their source."""
        if self.policy is not None:
            refuse_strengths(run, "a policy")
            chosen = make_policy(self.policy)
            return chosen if self.strength is None else weakened(chosen, self.strength, within=run.region is not None)
        weight = as_schedule(self.weight).within(*self.t_window)
        outside = Hold(
            "all" if isinstance(self.layers, VitalSet) else self.chosen_layers, where="outside", weight=weight
        )
        if brings_strengths(run):
            return dialled(0.0, within=run.region is not None, outside=outside)  # by row: see blend
        if self.strength is not None:
            return dialled(self.strength, within=run.region is not None, outside=outside)
        return (
            Policy((Hold(self.chosen_layers, weight=weight),)) if run.region is None else Policy((outside,), pin=ALWAYS)
        )

    def interventions(self, run: Run) -> Sequence[Intervention]:
        return [*super().interventions(run), ReuseResidual(self._others(run), self._spared(run))]

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        if self.away == 0.0:
            return super().step(run, z, t0, t1)
        velocity = run.once("pushed", lambda: pushed(run, self.guidance(run), self.away))
        return run.advance(run.once("solver", lambda: self.solver(run)), velocity, z, t0, t1)

    def blend(self, run: Run, hold: Hold) -> Blend:
        blend = self._blend(run, hold)
        return blend if self.away == 0.0 else blend.twice()

    def _blend(self, run: Run, hold: Hold) -> Blend:
        if brings_strengths(run) and hold.where != "outside":
            weights = weights_by_row(run, self.strength)
            return Blend(hold.weight, weights if self.token_mask is None else weights * self.token_mask)
        if hold.where == "everywhere" or run.region is None:
            return Blend(hold.weight, self.token_mask, low=hold.band == "low")
        return super().blend(run, hold)

    def _others(self, run: Run) -> list[int]:
        held = self.held_layers(run)
        return [layer.index for layer in self.model.layers if layer.index not in held]

    def _spared(self, run: Run) -> frozenset[float]:
        """The times at which edits do without the layers that nothing is injected in: the same for every edit."""
        source, speed = run.source, self.speed()
        alternate = every_nth(source.grid, speed.reuse_every)
        return alternate | steady_times(source.trajectory, source.grid, speed.reuse_tolerance)

    def notes(self, run: Run) -> dict[str, Any]:
        store, plan = run.source.store, self.plan(run)
        return super().notes(run) | {
            "guidance_scale": run.scales(self.guidance(run)),
            "layers": list(self.held_layers(run)),
            "held": as_json(plan),
            "t_window": list(self.t_window),
            "token_mask": None if self.token_mask is None else digest(self.token_mask),
            "weight": as_json(self.weight),
            "keep": "share" if store is None else "recorded",
            "kv_precision": None if store is None else store.precision,
            "preset": dataclasses.asdict(self.speed()),
            "spared_passes": len(self._spared(run)) if self.strength != 0 else 0,
        }
