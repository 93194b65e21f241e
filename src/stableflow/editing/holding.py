"""What editors share that hold keys and values of the source, as a policy says."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stableflow.editing.making import record_again
from stableflow.editing.on_path import OnPath
from stableflow.editing.policy import Hold, Policy
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.flow.schedule import Schedule
from stableflow.interventions import InjectKV, ShareKV
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

    def held_layers(self, run: Run) -> tuple[int, ...]:
        """Return the layers of which something is held, in order."""
        return tuple(
            sorted({layer for hold in self.plan(run).hold for layer in resolve_layers(self.model, hold.layers)})
        )

    def prepared(self, run: Run) -> Source:
        source, needed = super().prepared(run), self.held_layers(run)
        if source.store is None or set(needed) <= set(source.store.layers):
            return source
        recording = replace(self.recording(), layers=needed)
        path, nfe = source.keep(("recorded", recording), lambda: record_again(self.model, source, recording))
        run.nfe["source"] += nfe
        return replace(source, path=path)

    def interventions(self, run: Run) -> Sequence[Intervention]:
        return [self._intervention(run, hold) for hold in self.plan(run).hold]

    def blend(self, run: Run, hold: Hold) -> Blend:
        """Return how strongly and where something is held; every token that the region touches is inside it."""
        if hold.where == "everywhere" or run.region is None:
            return Blend(hold.weight)
        inside = run.whole_region
        return Blend(hold.weight, region=inside if hold.where == "inside" else ~inside)

    def _intervention(self, run: Run, hold: Hold) -> Intervention:
        layers, store, blend = resolve_layers(self.model, hold.layers), run.source.store, self.blend(run, hold)
        return ShareKV(layers, blend, hold.parts) if store is None else InjectKV(layers, store, blend, hold.parts)
