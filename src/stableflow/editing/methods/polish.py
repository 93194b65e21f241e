"""CODE: a picture, or a region of it, is made likely at one noise level by Langevin steps, and drawn out again."""

from dataclasses import dataclass

import torch

from stableflow.checks import check_count, check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import FixedPoint
from stableflow.flow.stochastic import noise_of
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("polish", paper="arXiv:2408.12418", good_for="a collage or an overdone edit made plausible, most of it kept")
@dataclass(frozen=True)
class Polish(Editor):
    """At one t: z += e s + sqrt(2 e) noise, again and again, with the score s = -(z + (1 - t) v) / t; e = size t^2.

    Before, the picture is inverted to t; after, the flow is followed to the image. Two knobs: t says what scale may
    change, size and steps how much.

    Args:
        strength: t, instead of `depth`.
        num_steps: Of the whole grid.
        depth: t, in (0, 1]; the nearest time of the grid.
        steps: Of Langevin.
        size: Of a step, as a share of the noise's variance.
        guidance_scale: Of all velocities but the inversion's.
        seed: Of the noises; when None it follows from the source.

    Source: Hu et al., "CODE: Confident Ordinary Differential Editing", arXiv:2408.12418, in flow form: its correction
    at one latent. Without its clipping of latents; `region` takes the place of its masks.
    """

    num_steps: int = 28
    depth: float = 0.3
    steps: int = 20
    size: float = 0.02
    guidance_scale: float | None = UNGUIDED
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("depth", self.depth, 0, 1, above=True)
        check_count("steps", self.steps, 0, 10_000)
        check_number("size", self.size, 0, 1)

    def times(self, run: Run) -> TimeGrid:
        return run.whole_grid(self.num_steps).since(self.depth if self.strength is None else self.strength)

    def start(self, run: Run) -> Latents:
        t = run.grid.times[0]
        held, velocity, e = self.held(run, t), run.of_edits(self.guidance_scale), self.size * t**2
        z = run.rows(held)
        for _ in range(self.steps):
            score = -noise_of(z, velocity(z, t), t) / t
            z = torch.lerp(held.expand_as(z), z + e * score + (2 * e) ** 0.5 * run.noise(), run.free)
        return z

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        return z + (t1 - t0) * run.of_edits(self.guidance_scale)(z, t0)

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("num_steps", "depth", "strength"), lambda: self._to_noise(run)).at(t)

    def _to_noise(self, run: Run) -> Path:
        return Path(invert(run.of_source(UNGUIDED), run.clean, run.grid, FixedPoint()).trajectory)
