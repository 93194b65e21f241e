"""What editors share that hold keys and values of the source, as a policy says."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stableflow.editing.computing import WORTH, Compute, Computed, region_tokens, why_all
from stableflow.editing.making import record_again
from stableflow.editing.on_path import OnPath
from stableflow.editing.policy import Hold, Policy
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.schedule import Schedule
from stableflow.interventions import InjectKV, LeaveOut, ShareKV
from stableflow.interventions.blend import Blend
from stableflow.models.base import Intervention
from stableflow.region import Region
from stableflow.vital.presets import resolve_layers


@dataclass(frozen=True)
class Holding(OnPath, ABC):
    """Edits on the source's path that read some of its keys and values instead of making them."""

    @abstractmethod
    def plan(self, run: Run) -> Policy:
        """Return what this run's edits hold of their source."""

    def acting(self, run: Run, region: Region | None) -> Region | None:
        if region is None or self.plan(run).edge == "free":
            return region
        made, size = run.source.fingerprint, region.size
        return (~(~region).padded((made.height, made.width)).whole(self.model.pixel_multiple)).cropped(size)

    def pinned(self, run: Run) -> Schedule:
        return self.plan(run).pin

    def finely(self, run: Run) -> bool:
        return self.plan(run).fine

    def held_layers(self, run: Run) -> tuple[int, ...]:
        """Return the layers of which something is held, in order."""
        return tuple(
            sorted({layer for hold in self.plan(run).hold for layer in resolve_layers(self.model, hold.layers)})
        )

    def layers_within(self) -> tuple[int, ...]:
        """Return the layers of which edits with a region read keys and values, as a plan may say beforehand."""
        return tuple(range(len(self.model.layers)))

    def prepared(self, run: Run) -> Source:
        source, needed = super().prepared(run), self.held_layers(run)
        if source.store is None or set(needed) <= set(source.store.layers):
            return source
        recording = replace(self.recording(), layers=needed)
        path, nfe = source.keep(("recorded", recording), lambda: record_again(self.model, source, recording))
        run.nfe["source"] += nfe
        return replace(source, path=path)

    def computes(self) -> Compute:
        """Return which image tokens passes are to compute."""
        return "auto"

    def computed(self, run: Run) -> Computed:
        """Return which image tokens the passes of a run compute.

        Raises:
            InputError: The region's alone are asked for, and that would be another edit; says why.
        """
        return run.once("computed", lambda: self._computed(run))

    def interventions(self, run: Run) -> Sequence[Intervention]:
        holds, store, computed = self.plan(run).hold, run.source.store, self.computed(run)
        if computed.why is not None or store is None:
            return [self._intervention(run, hold) for hold in holds]
        region = run.whole_region
        if _is_one_of_whole_tokens(region):
            holds = [hold for hold in holds if hold.where != "outside"]  # nothing that is computed lies there
        return [LeaveOut(region, store), *(self._intervention(run, hold) for hold in holds)]

    def notes(self, run: Run) -> dict[str, Any]:
        if run.region is None or self.strength == 0:
            return {}
        return {"computed": self.computed(run).as_json()}

    def blend(self, run: Run, hold: Hold) -> Blend:
        """Return how strongly and where something is held; every token that the region touches is inside it."""
        if hold.where == "everywhere" or run.region is None:
            return Blend(hold.weight, low=hold.band == "low")
        inside = run.whole_region
        return Blend(hold.weight, region=inside if hold.where == "inside" else ~inside, low=hold.band == "low")

    def _intervention(self, run: Run, hold: Hold) -> Intervention:
        layers, store, blend = resolve_layers(self.model, hold.layers), run.source.store, self.blend(run, hold)
        return ShareKV(layers, blend, hold.parts) if store is None else InjectKV(layers, store, blend, hold.parts)

    def _computed(self, run: Run) -> Computed:
        (inside, every), asked = region_tokens(run), self.computes()
        why = "compute='all'" if asked == "all" else why_all(run, self.plan(run), self.solver(run))
        if asked == "region" and why is not None:
            raise InputError(
                f"compute='region' cannot be done: {why}. Use compute='auto', which says so in the recipe."
            )
        if asked == "auto" and why is None and inside > WORTH * every:
            why = f"the region touches {inside} of {every} image tokens, too many to gain"
        store = run.source.store
        kept = None if store is None else (store.num_bytes, store.place)
        return Computed(inside if why is None else every, every, why, kept)


def _is_one_of_whole_tokens(region: Region) -> bool:
    """Whether every pixel is wholly inside in all rows, or in none."""
    return bool(((region.amount.amin(0) == 1) | (region.amount.amax(0) == 0)).all())
