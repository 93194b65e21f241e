"""Layered Diffusion Brushes: at one step part of the noise inside a region is drawn anew."""

from dataclasses import dataclass

from stableflow.checks import check_count, check_number
from stableflow.editing.base import editor
from stableflow.editing.on_path import OnPath
from stableflow.editing.path import edit_solver
from stableflow.editing.run import Run
from stableflow.flow.schedule import Schedule
from stableflow.flow.stochastic import noise_of, turned
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("brushes", paper="arXiv:2405.00313", good_for="quick strokes: only the steps below the stroke are drawn again")
@dataclass(frozen=True)
class Brushes(OnPath):
    """At one t, z = x + t region (sqrt(1 - amount^2) noise + amount fresh - noise); x and its noise are the source's.

    Then the path's own steps under the edit's prompt, and the source outside the region in the last of them. Without
    new noise and with the source's prompt this is the source.

    Args:
        begin: Flow time of the stroke, on the source's path. Higher changes more and costs more.
        strength: The same, instead of `begin`.
        amount: Share of the noise that is new, in [0, 1]. Noise stays as strong as it was, so that none is left over.
        blend_steps: Last steps in which the outside is the source's; before them it moves along.
        seed: Of the new noise: another seed is another stroke. When None it follows from the source.

    Source: Gholami and Xiao, "Streamlining Image Editing with Layered Diffusion Brushes" (ICCV 2025), arXiv:2405.00313.
    There new noise is added, here the old one is turned; and there the last two steps are free again outside.
    """

    begin: float = 0.8
    amount: float = 0.5
    blend_steps: int = 2
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("begin", self.begin, 0, 1, above=True)
        check_number("amount", self.amount, 0, 1)
        check_count("blend_steps", self.blend_steps, 0)

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid.since(self.begin if self.strength is None else self.strength)

    def start(self, run: Run) -> Latents:
        path, (t, below) = run.source.path, run.grid.times[:2]
        x = path.at(t)
        noise = noise_of(x, (path.at(below) - x) / (below - t), t)  # by the path's own step
        return x + t * run.free * (turned(noise, run.noise(), self.amount) - noise)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        made, path = run.source.fingerprint, run.source.path
        solver = run.once("solver", lambda: edit_solver(made, path, shared=False))
        return run.advance(solver, run.of_edits(self.guidance(run)), z, t0, t1)

    def pinned(self, run: Run) -> Schedule:
        times = run.grid.times
        return Schedule.window(0.0, times[max(0, len(times) - 1 - self.blend_steps)])
