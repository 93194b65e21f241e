"""Stable Flow: source and edits from one noise, the source's keys and values injected in chosen layers."""

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
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.memory import KVMemory
from stableflow.editing.plans import blend_by_row, plan_of, told
from stableflow.editing.policy import Hold, Policy, make_policy
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.run import Run
from stableflow.editing.sparing import spared, sparing
from stableflow.flow.schedule import Schedule, as_schedule, as_window
from stableflow.interventions.blend import WHOLE_FLOW, Blend
from stableflow.models.base import Intervention
from stableflow.types import Velocity
from stableflow.vital.presets import VITAL, VitalSet, resolve_layers


@editor("stable-flow", paper="arXiv:2411.14430", good_for="edits that keep what is not named; with a region, exactly")
@dataclass(frozen=True, kw_only=True)
class StableFlow(Holding):
    """Avrahami et al., "Stable Flow: Vital Layers for Training-Free Image Editing" (CVPR 2025), arXiv:2411.14430.

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
        kv_memory: Where the source's keys and values are kept, or "share" (`KVMemory`). `keep` is its old name.
        preset: "exact", "balanced" or "fast": how pictures are inverted and what edits leave out (`SpeedPreset`).
        compute: "region" computes the region's image tokens alone, "auto" where that pays, "all" never (`Compute`).
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
        object.__setattr__(self, "policy", None if self.policy is None else make_policy(self.policy))
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
        named = self.policy is None and not isinstance(self.layers, VitalSet)
        return self.chosen_layers if named else super().layers_within()

    def computes(self) -> Compute:
        return self.compute

    def recording(self) -> Recording:
        return Recording(self.chosen_layers, self.kv_memory, self.speed().kv_precision)

    def plan(self, run: Run) -> Policy:
        weight = as_schedule(self.weight).within(*self.t_window)
        return plan_of(run, self.chosen_layers, weight, strength=self.strength, policy=self.policy)

    def interventions(self, run: Run) -> Sequence[Intervention]:
        return [*super().interventions(run), sparing(run, self.speed(), self.held_layers(run))]

    def velocities(self, run: Run) -> Velocity:
        return super().velocities(run) if self.away == 0.0 else pushed(run, self.guidance(run), self.away)

    def blend(self, run: Run, hold: Hold) -> Blend:
        blend = blend_by_row(run, hold, self.strength, self.token_mask) or super().blend(run, hold)
        return blend if self.away == 0.0 else blend.twice()

    def notes(self, run: Run) -> dict[str, Any]:
        return super().notes(run) | {
            "guidance_scale": run.scales(self.guidance(run)),
            "layers": list(self.held_layers(run)),
            **told(run, self.plan(run), self.speed(), spared(run, self.speed()) if self.strength != 0 else ()),
        }
