"""FlowEdit: from source picture to edit along the difference of two velocities, without inversion."""

from dataclasses import dataclass

from stableflow.checks import check_count, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import difference
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("flowedit", paper="arXiv:2412.08629", good_for="real pictures without inversion; words swapped, layout kept")
@dataclass(frozen=True)
class FlowEdit(Editor):
    """dz = [v(z_t^tar, t; target) - v(z_t^src, t; source)] dt, from z = z_0^src, with

    z_t^src = (1 - t) z_0^src + t noise, drawn afresh at every step, and z_t^tar = z_t^src + (z - z_0^src).

    Args:
        strength: Share of the steps that are walked: n_max = strength x num_steps, at least 1. Instead of n_max.
        num_steps: Of the whole grid.
        n_max: How many of the last steps are walked at all; the noisier ones are left out. More changes more.
        n_min: How many of the last of these are ordinary sampling of the target from z^tar, for edits that must
            leave the source's structure, such as a style.
        n_avg: Noises over which the velocity difference of a step is averaged.
        source_guidance_scale, target_guidance_scale: Of the two velocities.
        seed: Of the noises; when None it follows from the source (and is not the source's own).

    Source: Kulikov et al., "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models" (ICCV 2025),
    arXiv:2412.08629, algorithm 1 and its form with n_min. The defaults are the paper's for FLUX.1-dev.
    """

    num_steps: int = 28
    n_max: int = 24
    n_min: int = 0
    n_avg: int = 1
    source_guidance_scale: float = 1.5
    target_guidance_scale: float = 5.5
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        if not 1 <= check_count("n_max", self.n_max, 0) <= self.num_steps:
            raise InputError(f"n_max must lie in 1..num_steps, got {self.n_max} of {self.num_steps} steps.")
        if not 0 <= check_count("n_min", self.n_min, -1) < self.n_max:
            raise InputError(f"n_min must lie in 0..n_max - 1, got {self.n_min} with n_max {self.n_max}.")
        check_count("n_avg", self.n_avg)

    def times(self, run: Run) -> TimeGrid:
        walked = self.n_max if self.strength is None else max(1, self.n_min + 1, round(self.strength * self.num_steps))
        return run.whole_grid(self.num_steps).last(walked)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        sampled_from = run.grid.times[-1 - self.n_min]  # from here on z is z^tar itself
        if t0 <= sampled_from:
            return z + (t1 - t0) * run.of_edits(self.target_guidance_scale)(z, t0)
        z = z + (t1 - t0) * difference(run, z, t0, self.source_guidance_scale, self.target_guidance_scale, self.n_avg)
        return z + t1 * (run.once("noise", run.noise) - run.clean) if self.n_min and t1 == sampled_from else z

    def held(self, run: Run, t: float) -> Latents:
        if self.n_min == 0 or t > run.grid.times[-1 - self.n_min]:
            return run.clean
        return (1 - t) * run.clean + t * run.once("noise", run.noise)
