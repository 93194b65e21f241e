"""DDCM, InfEdit's virtual inversion: the source's noise is known at every step, so that nothing is inverted."""

from dataclasses import dataclass

import torch

from stableflow.checks import check_count, check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.run import Run
from stableflow.flow.stochastic import State, image_of, noise_of
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("ddcm", paper="arXiv:2312.04965", good_for="few steps, and few-step models; no inversion")
@dataclass(frozen=True)
class DDCM(Editor):
    """The source is z_t^src = (1 - t) z_0 + t noise_t, with noise that is drawn anew; the edit follows beside it.

    Args:
        strength: Share of the steps that are walked, at least one; all when None.
        num_steps: Of the whole grid. The rule asks for the edit's image afresh at every step, so few are enough.
        n_min: How many of the last of these are ordinary sampling of the edit.
        n_avg: Noises over which the velocity difference of a step is averaged.
        eta: Share of the noise's variance that is new at each step, in [0, 1]; 1 is the paper's.
        source_guidance_scale, target_guidance_scale: Of the two velocities.
        seed: Of the noises; when None it follows from the source (and is not the source's own).

    Source: Xu et al., "Inversion-Free Image Editing with Natural Language" (InfEdit, CVPR 2024), arXiv:2312.04965: the
    denoising diffusion consistent model and virtual inversion, in flow form. Steps and scales by default are those
    of its consistency model. Its control of attention is not part of this.
    """

    num_steps: int = 12
    n_min: int = 0
    n_avg: int = 1
    eta: float = 1.0
    source_guidance_scale: float = 1.0
    target_guidance_scale: float = 2.3
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_count("n_min", self.n_min, 0, self.num_steps - 1)
        check_count("n_avg", self.n_avg)
        check_number("eta", self.eta, 0, 1)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        if t0 <= run.grid.times[-1 - min(self.n_min, run.grid.num_steps)]:
            return z + (t1 - t0) * run.of_edits(self.target_guidance_scale)(z, t0)
        ahead, noise = z - self.held(run, t0), self._noises(run)[t1]
        return followed(ahead, self._turn(run, z, t0), run.clean, noise, t0, t1, self.eta)

    def _turn(self, run: Run, z: Latents, t: float) -> Latents:
        """Return the edit's velocity minus the source's, averaged over noises of which the first is the path's."""
        velocity = run.of_both(self.source_guidance_scale, self.target_guidance_scale)
        source = self.held(run, t)
        others = [run.noised(t) - source for _ in range(self.n_avg - 1)]
        pairs = [velocity(torch.cat([source, z]), t)]
        pairs += [velocity(torch.cat([source + other, z + other]), t) for other in others]
        return torch.stack([pair[1:] - pair[:1] for pair in pairs]).mean(0)

    def held(self, run: Run, t: float) -> Latents:
        return (1 - t) * run.clean + t * self._noises(run)[t]

    def _noises(self, run: Run) -> dict[float, Latents]:
        return run.once("noises", lambda: self._drawn(run))

    def _drawn(self, run: Run) -> dict[float, Latents]:
        noise = run.noise()
        noises = {run.grid.times[0]: noise}
        for t in run.grid.times[1:]:
            noise = (1 - self.eta) ** 0.5 * noise + self.eta**0.5 * run.noise()
            noises[t] = noise
        return noises


def followed(ahead: State, turn: State, clean: State, noise: State, t0: float, t1: float, eta: float) -> Latents:
    """Return the edit at t1; source and edit share the noise of t1, the edit's own being ahead by what eta keeps.

    Args:
        ahead: Edit minus source at t0.
        turn: The edit's velocity minus the source's there.
        clean: The source's image.
        noise: The source's at t1.
    """
    image = clean + image_of(ahead, turn, t0)
    noise = noise + (1 - eta) ** 0.5 * noise_of(ahead, turn, t0)
    return (1 - t1) * image + t1 * noise
