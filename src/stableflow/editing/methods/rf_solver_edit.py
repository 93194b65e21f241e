"""RF-Solver-Edit and FireFlow: second-order inversion, and the inversion's values in the first steps of the edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stableflow.checks import check_choice, check_count, check_flag, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.integrate import integrate
from stableflow.flow.schedule import Schedule
from stableflow.flow.solvers import FireFlow, Midpoint
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import recording
from stableflow.interventions import InjectKV, KVStore, RecordKV
from stableflow.interventions.blend import Blend
from stableflow.models.base import Intervention
from stableflow.types import Latents
from stableflow.vital.presets import resolve_layers

VALUES = ("value",)
RULES = {"midpoint": Midpoint(), "fireflow": FireFlow()}


@editor("rf-solver-edit", paper="arXiv:2411.04746", good_for="real pictures kept closely; small semantic changes")
@dataclass(frozen=True)
class RFSolverEdit(Editor):
    """Invert by the midpoint rule, keep the image values of late layers, and inject them in the first editing steps.

    Args:
        strength: inject_steps = (1 - strength) x num_steps, instead of `inject_steps`.
        inject_steps: Editing steps, from the noise on, in which values are injected. More keeps more.
        layers: Where; the second half of the single layers when None.
        num_steps: Steps in each direction, two evaluations each.
        inversion_guidance_scale: Of the inversion.
        guidance_scale: Of the edits; the model's usual scale when None.
        solver: "midpoint", RF-Solver's, or "fireflow", at half the evaluations.
        published: As the releases: text's values too; "midpoint" gives the first pass of a step what the inversion had
            at its other end, in single layers 20.. of 38; "fireflow" the very first pass nothing, in all single layers.

    Source: Wang et al., "Taming Rectified Flow for Inversion and Editing" (ICML 2025), arXiv:2411.04746; Deng et al.,
    "FireFlow", arXiv:2412.07517. Here a pass of the edit at t is given what the inversion computed at t. The inversion
    never asks for v at t = 1, where the edit begins: one more pass. A layer's values of a pass take 25 MB in FLUX.1.
    """

    inject_steps: int = 4
    layers: Sequence[int] | None = None
    num_steps: int = 15
    inversion_guidance_scale: float = 1.0
    guidance_scale: float | None = 2.0
    solver: str = "midpoint"
    published: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_choice("solver", self.solver, list(RULES))
        check_flag("published", self.published)
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
        return run.advance(RULES[self.solver], run.of_edits(self.guidance_scale), z, t0, t1)

    def held(self, run: Run, t: float) -> Latents:
        return self._path(run).at(t)

    def interventions(self, run: Run) -> Sequence[Intervention]:
        store, given = self._path(run).store, self._given(run.grid)
        if store is None:
            return ()
        early = Blend(Schedule.window(min(given), max(given)))  # up to the midpoint of the last of these steps
        return [InjectKV(self._layers(), store, early, VALUES, every_token=self.published)]

    def _path(self, run: Run) -> Path:
        settings = ("num_steps", "injected", "layers", "inversion_guidance_scale", "solver", "published")
        return run.path(settings, lambda: self._to_noise(run))

    def _to_noise(self, run: Run) -> Path:
        """The midpoint rule has no memory, so its inversion may be cut where recording begins."""
        velocity, rule = run.of_source(self.inversion_guidance_scale), RULES[self.solver]
        given, rising = self._given(run.grid), run.grid.reversed().times
        cut = self.num_steps - self.injected if self.solver == "midpoint" or not given else 0
        states, latents, store = recording(run.clean, 0.0), run.clean, None
        if cut > 0:
            latents = integrate(velocity, latents, TimeGrid(rising[: cut + 1]), rule, callback=states.keep)
        if given:
            made = KVStore()
            with self.model.attach(RecordKV(self._layers(), made, VALUES, every_token=self.published)):
                latents = integrate(velocity, latents, TimeGrid(rising[cut:]), rule, callback=states.keep)
                if 1.0 in given.values():
                    velocity(latents, 1.0)
            store = made.at_times(given)
        return Path(states, {}, store)

    def _given(self, grid: TimeGrid) -> Mapping[float, float]:
        """By the time of a pass of the edit, the time of the inversion's pass whose values it is given."""
        steps = list(grid.steps())[: self.injected]
        halfway = {(t0 + t1) / 2: (t0 + t1) / 2 for t0, t1 in steps}
        if self.solver == "fireflow":
            return halfway if self.published or not steps else {1.0: 1.0, **halfway}
        return halfway | {t0: t1 if self.published else t0 for t0, t1 in steps}

    def _layers(self) -> tuple[int, ...]:
        single = [layer.index for layer in self.model.layers if layer.kind == "single"]
        late = 0 if self.solver == "fireflow" else len(single) * 20 // 38
        return tuple(single[late if self.published else len(single) // 2 :] if self.layers is None else self.layers)
