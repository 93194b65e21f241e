"""An editor in a package of its own: every step predicts the picture and noises it afresh.

`pip install ./examples/plugin_editor`, then `stableflow edit --editor renoise ...` or `EDITORS["renoise"](model)`.
"""

from dataclasses import dataclass

from stableflow.checks import check_steps
from stableflow.editing import Editor, editor
from stableflow.editing.run import Run
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("renoise", good_for="an example; looser than sdedit, for noise is never followed for long")
@dataclass(frozen=True)
class Renoise(Editor):
    """z_t1 = (1 - t1) (z_t0 - t0 v(z_t0, t0)) + t1 noise, with noise drawn at every step; it starts as SDEdit does.

    Args:
        strength: The flow time to start at; 0.6 when None.
        num_steps: Of the whole grid.
        guidance_scale: The model's usual scale when None.
        seed: Of the noises; when None it follows from the source.
    """

    num_steps: int = 28
    guidance_scale: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)

    def times(self, run: Run) -> TimeGrid:
        times, first = run.whole_grid(self.num_steps).times, 0.6 if self.strength is None else self.strength
        return TimeGrid(times[min(range(self.num_steps), key=lambda i: abs(times[i] - first)) :])

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        picture = z - t0 * run.of_edits(self.guidance_scale)(z, t0)
        return (1 - t1) * picture + t1 * run.once(t1, run.noise)

    def held(self, run: Run, t: float) -> Latents:
        return (1 - t) * run.clean + t * run.once(t, run.noise)
