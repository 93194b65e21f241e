"""Edit-friendly DDPM inversion: a source's own noises, independent of one another, and the edit drawn with them."""

from dataclasses import dataclass
from typing import Literal

from stableflow.checks import check_count, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.errors import unknown_name
from stableflow.flow.stochastic import ancestral_sigma, mean
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.types import Latents

SIGMAS = ("ancestral", "full")


@editor("edit-friendly", paper="arXiv:2304.06140", good_for="several variants of one edit; re-edits at half the cost")
@dataclass(frozen=True)
class EditFriendly(Editor):
    """z_{t1} = x_{t1} + (mean(z_{t0}; target) - mean(x_{t0}; source)), with x_t = (1 - t) z_0 + t noise_t.

    The noises are independent of one another. x_{t1} - mean(x_{t0}; source) is sigma times the paper's z: what the
    source's own stochastic step lacks to arrive at x_{t1}. It is worked out once a source and kept, so that other edits
    of it cost one evaluation a step, and the source's own prompt returns the source.

    Args:
        strength: Share of the steps that are walked, at least one, instead of `skip`.
        num_steps: Of the whole grid.
        skip: Steps left out, from the noise on. More keeps more.
        sigma: Noise of the step t0 -> t1: "ancestral" is DDPM's, "full" forgets the old noise at every step, and is
            then DDCM with eta = 1.
        source_guidance_scale: Of the source's steps.
        target_guidance_scale: Of the edits; the model's usual scale when None.
        seed: Of the noises; when None it follows from the source. Other seeds are other edits.

    Source: Huberman-Spiegelglas et al., "An Edit Friendly DDPM Noise Space" (CVPR 2024), arXiv:2304.06140, in flow
    form, with eta = 1.
    """

    num_steps: int = 50
    skip: int = 12
    sigma: Literal["ancestral", "full"] = "ancestral"
    source_guidance_scale: float = 1.0
    target_guidance_scale: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("skip", self.skip, 0, check_steps("num_steps", self.num_steps) - 1)
        if self.sigma not in SIGMAS:
            raise unknown_name("sigma", self.sigma, SIGMAS)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole.last(self.num_steps - self.skip) if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        path, velocity = self._path(run), run.of_edits(self.target_guidance_scale)(z, t0)
        own = path.offsets[t0]  # mean(x_{t0}; source)
        return path.at(t1) + (mean(z, velocity, t0, t1, self.noise(t0, t1)) - own)

    def held(self, run: Run, t: float) -> Latents:
        return self._path(run).at(t)

    def noise(self, t0: float, t1: float) -> float:
        """Return sigma of the step."""
        return t1 if self.sigma == "full" else ancestral_sigma(t0, t1)

    def _path(self, run: Run) -> Path:
        settings = ("num_steps", "skip", "strength", "sigma", "source_guidance_scale", "seed")
        return run.path(settings, lambda: self._of_source(run))

    def _of_source(self, run: Run) -> Path:
        states = Trajectory({t: run.noised(t) for t in run.grid.times})
        velocity, own = run.of_source(self.source_guidance_scale), dict[float, Latents]()
        for t0, t1 in run.grid.steps():
            own[t0] = mean(states.at(t0), velocity(states.at(t0), t0), t0, t1, self.noise(t0, t1))
        return Path(states, own)
