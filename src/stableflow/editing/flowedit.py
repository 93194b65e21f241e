"""FlowEdit: from source picture to edit along the difference of two velocities, without inversion."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.editing.base import EDITORS
from stableflow.editing.picture import Run, check_num_steps, draw, encode
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, integrate
from stableflow.flow.solvers import Euler
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Conditioning, FlowModel
from stableflow.types import Latents, Velocity


@EDITORS.register("flowedit")
@dataclass(frozen=True)
class FlowEdit:
    """dz = [v(z_t^tar, t; target) - v(z_t^src, t; source)] dt, from z = z_0^src, with

    z_t^src = (1 - t) z_0^src + t noise, drawn afresh at every step, and z_t^tar = z_t^src + (z - z_0^src).

    Args:
        model: From `load` or `wrap`.
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

    model: FlowModel
    num_steps: int = 28
    n_max: int = 24
    n_min: int = 0
    n_avg: int = 1
    source_guidance_scale: float = 1.5
    target_guidance_scale: float = 5.5
    seed: int | None = None

    generate, invert = draw, encode

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)
        if not 1 <= self.n_max <= self.num_steps:
            raise InputError(f"n_max must lie in 1..num_steps, got {self.n_max} of {self.num_steps} steps.")
        if not 0 <= self.n_min < self.n_max:
            raise InputError(f"n_min must lie in 0..n_max - 1, got {self.n_min} with n_max {self.n_max}.")
        if self.n_avg < 1:
            raise InputError(f"n_avg must be 1 or more, got {self.n_avg}.")

    def edit(
        self, source: Source, prompts: str | Sequence[str] | Conditioning, *, callback: Callback | None = None
    ) -> EditResult:
        """Draw the edits of a source, all in one batch with it; see `Run` for what it raises.

        Where n_min is not 0, `callback` counts the steps of both parts from 1.
        """
        run = Run(self, source, prompts)
        times, generator = run.grid(self.num_steps).times, run.generator(self.seed)
        first, last = self.num_steps - self.n_max, self.num_steps - self.n_min
        difference = self._difference(run, generator)
        grid = TimeGrid(times[first : last + 1])
        latents = integrate(difference, run.rows(run.clean), grid, Euler(), callback=callback)
        if self.n_min:
            t = times[last]
            noisy = latents + t * (run.noise(generator) - run.clean)  # z^tar: z^src = z_0 + t (noise - z_0)
            velocity = run.velocity(run.edits, run.guidance(self.target_guidance_scale))
            latents = integrate(velocity, noisy, TimeGrid(times[last:]), Euler(), callback=callback)
        return run.result(latents)

    def _difference(self, run: Run, generator: torch.Generator) -> Velocity:
        """Source and targets pass the model in one batch: all targets meet the same noise."""
        source_scale, target_scale = run.guidance(self.source_guidance_scale), run.guidance(self.target_guidance_scale)
        scales = None
        if source_scale is not None and target_scale is not None:
            scales = [source_scale, *[target_scale] * len(run.edits)]
        velocity = run.velocity(Conditioning.concat([run.source.conditioning, run.edits]), scales)

        def difference(latents: Latents, t: float) -> Tensor:
            total = torch.zeros_like(latents)
            for _ in range(self.n_avg):
                noisy = (1 - t) * run.clean + t * run.noise(generator)
                both = velocity(torch.cat([noisy, noisy + (latents - run.clean)]), t)
                total = total + both[1:] - both[:1]
            return total / self.n_avg

        return difference
