"""RF-Solver-Edit: second-order inversion, and the inversion's values in the first steps of the edit."""

from collections.abc import Sequence
from dataclasses import dataclass

from stableflow.checks import check_count, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.integrate import integrate
from stableflow.flow.schedule import Schedule
from stableflow.flow.solvers import Midpoint
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import recording
from stableflow.interventions import InjectKV, KVStore, RecordKV
from stableflow.interventions.blend import Blend
from stableflow.models.base import Intervention
from stableflow.types import Latents
from stableflow.vital.presets import resolve_layers

VALUES = ("value",)
MIDPOINT = Midpoint()


@editor("rf-solver-edit", paper="arXiv:2411.04746", good_for="real pictures kept closely; small semantic changes")
@dataclass(frozen=True)
class RFSolverEdit(Editor):
    """Invert by the midpoint rule, keep the image values of late layers, and inject them in the first editing steps.

    Memory: a value a kept pass and layer, 2 x inject_steps + 2 passes; 25 MB each for FLUX.1 at 1024x1024 in bfloat16.

    Args:
        strength: inject_steps = (1 - strength) x num_steps, instead of `inject_steps`.
        inject_steps: Editing steps, from the noise on, in which values are injected. More keeps more.
        layers: Where; the second half of the single layers when None.
        num_steps: Steps in each direction, two evaluations each.
        inversion_guidance_scale: Of the inversion.
        guidance_scale: Of the edits; the model's usual scale when None.

    Source: Wang et al., "Taming Rectified Flow for Inversion and Editing" (ICML 2025), arXiv:2411.04746: RF-Solver, and
    RF-Edit's sharing of values. Values are looked up by flow time here: what a pass of the edit at t is given was
    computed by the inversion at t. The inversion itself never asks for a velocity at t = 1, where the edit begins, so
    one more pass is made there.
    """

    inject_steps: int = 4
    layers: Sequence[int] | None = None
    num_steps: int = 15
    inversion_guidance_scale: float = 1.0
    guidance_scale: float | None = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        if not 0 <= check_count("inject_steps", self.inject_steps, -1) <= self.num_steps:
            raise InputError(
                f"inject_steps must lie in 0..num_steps, got {self.inject_steps} of {self.num_steps} steps."
            )
        if self.layers is not None:
            object.__setattr__(self, "layers", resolve_layers(self.model, self.layers))

    @property
    def injected(self) -> int:
        """The number of editing steps with injection."""
        return self.inject_steps if self.strength is None else round((1 - self.strength) * self.num_steps)

    def start(self, run: Run) -> Latents:
        return run.rows(self._path(run).at(1.0))

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        return run.advance(MIDPOINT, run.of_edits(self.guidance_scale), z, t0, t1)

    def held(self, run: Run, t: float) -> Latents:
        return self._path(run).at(t)

    def interventions(self, run: Run) -> Sequence[Intervention]:
        store = self._path(run).store
        if store is None:
            return ()
        t0, t1 = run.grid.times[self.injected - 1], run.grid.times[self.injected]
        early = Blend(Schedule.window((t0 + t1) / 2, 1.0))  # up to the midpoint of the last of these steps
        return [InjectKV(self._layers(), store, early, VALUES)]

    def _path(self, run: Run) -> Path:
        settings = ("num_steps", "injected", "layers", "inversion_guidance_scale")
        return run.path(settings, lambda: self._to_noise(run))

    def _to_noise(self, run: Run) -> Path:
        """The midpoint rule has no memory, so the inversion may be cut where recording begins."""
        velocity = run.of_source(self.inversion_guidance_scale)
        rising, cut = run.grid.reversed().times, self.num_steps - self.injected
        states, latents, store = recording(run.clean, 0.0), run.clean, None
        if cut > 0:
            latents = integrate(velocity, latents, TimeGrid(rising[: cut + 1]), MIDPOINT, callback=states.keep)
        if self.injected > 0:
            store = KVStore()
            with self.model.attach(RecordKV(self._layers(), store, VALUES)):
                latents = integrate(velocity, latents, TimeGrid(rising[cut:]), MIDPOINT, callback=states.keep)
                velocity(latents, rising[-1])
        return Path(states, {}, store)

    def _layers(self) -> tuple[int, ...]:
        if self.layers is not None:
            return tuple(self.layers)
        single = [layer.index for layer in self.model.layers if layer.kind == "single"]
        return tuple(single[len(single) // 2 :])
