"""DNAEdit: a drawn noise is led to the source's own, and the edit is held to a target that moves with it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count, check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.flow.inversion import invert
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents, Velocity


@dataclass(frozen=True)
class NoiseAlignment:
    """x' = x + (t1 - t0) u with u = (noise - x) / (1 - t0); x += (t1 - t0) v(x', t1); noise -= (1 - t0)(u - v).

    The state is asked for on the straight line to the noise, and the noise is led to where the velocity says it is.
    """

    noise: Latents
    order = 1
    evals_per_step = 1

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> Tensor:
        return self.noise

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        straight = (state - latents) / (1 - t0)
        found = velocity(latents + (t1 - t0) * straight, t1)
        return latents + (t1 - t0) * found, state - (1 - t0) * (straight - found)


@editor("dnaedit", paper="arXiv:2506.01430", good_for="real pictures in few steps, background kept by a moving target")
@dataclass(frozen=True)
class DNAEdit(Editor):
    """z += (t1 - t0)(hold v + (1 - hold)(z - target) / t0), target += (t1 - t0)(v - v_source); v at z + offset.

    The target starts as the source picture and moves by FlowEdit's rule; offset and v_source are the aligned path's.

    Args:
        strength: Share of the steps that are walked, at least one, instead of `skip`.
        num_steps: Of the whole grid.
        skip: Steps left out, from the noise on.
        hold: Share of the edit's own velocity, the rest leads to the target. Less keeps more.
        source_guidance_scale, target_guidance_scale: Of alignment and edits.
        seed: Of the noise; when None it follows from the source (and is not the source's own).

    Source: Xie et al., "DNAEdit: Direct Noise Alignment for Text-Guided Rectified Flow Editing" (NeurIPS 2025),
    arXiv:2506.01430. Its release takes scales of 3.5 and 13.5 for SD3; here they are FlowEdit's for FLUX.1.
    """

    num_steps: int = 28
    skip: int = 4
    hold: float = 0.85
    source_guidance_scale: float = 1.5
    target_guidance_scale: float = 5.5
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("skip", self.skip, 0, check_steps("num_steps", self.num_steps) - 1)
        check_number("hold", self.hold, 0, 1)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole.last(self.num_steps - self.skip) if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        (z, target), path = z.chunk(2, dim=1), self._path(run)
        own = (path.at(t1) - path.at(t0)) / (t1 - t0)
        v = run.of_edits(self.target_guidance_scale)(z + path.offsets[t0], t0)
        target = target + (t1 - t0) * (v - own)
        z = z + (t1 - t0) * (self.hold * v + (1 - self.hold) * (z - target) / t0)
        return torch.cat([z, target], dim=1)

    def finish(self, run: Run, z: Float[Tensor, "rows both latent_height latent_width"]) -> Latents:
        return z.chunk(2, dim=1)[0]

    def held(self, run: Run, t: float) -> Latents:
        return torch.cat([self._path(run).at(t), run.clean], dim=1)

    def _path(self, run: Run) -> Path:
        settings = ("num_steps", "skip", "strength", "source_guidance_scale", "seed")
        return run.path(settings, lambda: self._aligned(run))

    def _aligned(self, run: Run) -> Path:
        velocity = run.of_source(self.source_guidance_scale)
        found = invert(velocity, run.clean, run.grid, NoiseAlignment(run.noise()))
        return Path(found.trajectory, found.offsets)
