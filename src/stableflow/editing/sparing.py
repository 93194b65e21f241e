"""Passes in which edits do without the layers that nothing is injected in."""

from collections.abc import Collection

from stableflow.editing.presets import SpeedPreset
from stableflow.editing.run import Run
from stableflow.flow.skipping import every_nth, steady_times
from stableflow.interventions import ReuseResidual


def spared(run: Run, speed: SpeedPreset) -> frozenset[float]:
    """Return the times at which layers are left out: the same for every edit of a source."""
    source = run.source
    alternate = every_nth(source.grid, speed.reuse_every)
    return alternate | steady_times(source.trajectory, source.grid, speed.reuse_tolerance)


def sparing(run: Run, speed: SpeedPreset, held: Collection[int]) -> ReuseResidual:
    """Return what leaves out, at those times, all layers but the held ones."""
    others = [layer.index for layer in run.model.layers if layer.index not in held]
    return ReuseResidual(others, spared(run, speed))
