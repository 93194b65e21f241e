"""RF-Inversion: both ways along the flow under a controller that pulls to a known end."""

from collections.abc import Sequence
from dataclasses import dataclass

from stableflow.checks import check_flag, check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.flow.integrate import integrate
from stableflow.flow.schedule import NEVER, Schedule, as_window
from stableflow.flow.solvers import Euler
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import recording
from stableflow.types import Latents


@editor("rf-inversion", paper="arXiv:2410.10792", good_for="stylised and semantic changes of real pictures")
@dataclass(frozen=True)
class RFInversion(Editor):
    """To noise by dz/dt = v + gamma ((noise - z) / (1 - t) - v), back by dz/dt = v + eta_t ((z - z_0) / t - v).

    (noise - z) / (1 - t) leads straight to a noise that was drawn, (z - z_0) / t straight to the source picture.

    Args:
        strength: eta = 1 - strength at all times, instead of `eta` in `t_window`.
        gamma: Pull to typical noise while inverting, in [0, 1]. 0 inverts plainly, 1 forgets the picture.
        eta: Pull to the source picture while editing, in [0, 1]. 1 at all times returns the source.
        t_window: Flow times (low, high) in which eta acts; 1 is noise. A lower low keeps more.
        num_steps: Steps in each direction.
        inversion_prompt: What the inversion is told; the paper says nothing, "". None tells it the source's prompt.
        inversion_guidance_scale: Of the inversion; 1 when None, 0 as published.
        guidance_scale: Of the edits; the model's usual scale when None.
        seed: Of the noise; when None it follows from the source (and is not the source's own).
        published: Invert as the authors' pipeline does: n steps ask for v, and pull, at t = i / (n + 1), but are as
            long as those of sampling from its noisy end; and eta acts in the share 1 - low of the *steps*.

    Source: Rout et al., "Semantic Image Inversion and Editing using Rectified Stochastic Differential Equations" (ICLR
    2025), arXiv:2410.10792, the controlled ODEs of inversion and editing. The paper counts time from image to noise
    in the first and from noise to image in the second; here t is flow time in both, and in the window.
    """

    gamma: float = 0.5
    eta: float = 0.9
    t_window: Sequence[float] = (0.75, 1.0)
    num_steps: int = 28
    inversion_prompt: str | None = ""
    inversion_guidance_scale: float | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    published: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("gamma", self.gamma, 0, 1)
        check_number("eta", self.eta, 0, 1)
        as_window(self.t_window)
        check_flag("published", self.published)

    def pull(self, grid: TimeGrid) -> Schedule:
        """Return eta by flow time."""
        if self.strength is not None:
            return Schedule.constant(1 - self.strength)
        low, high = self.t_window
        if not self.published:
            return Schedule.window(low, high, self.eta)
        first, end = (int(round((1 - t) * grid.num_steps, 9)) for t in (high, low))
        return Schedule.window(grid.times[end - 1], grid.times[first], self.eta) if first < end else NEVER

    def start(self, run: Run) -> Latents:
        return run.rows(self.held(run, 1.0))

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        own = run.of_edits(self.guidance_scale)(z, t0)
        return z + (t1 - t0) * (own + run.once("pull", lambda: self.pull(run.grid))(t0) * ((z - run.clean) / t0 - own))

    def held(self, run: Run, t: float) -> Latents:
        settings = ("gamma", "num_steps", "inversion_prompt", "inversion_guidance_scale", "seed", "published")
        path = run.path(settings, lambda: self._to_noise(run))
        return (1 - t) * run.clean + t * path.at(1.0) if self.published and t < 1.0 else path.at(t)

    def _to_noise(self, run: Run) -> Path:
        told = run.source.conditioning
        if self.inversion_prompt is not None:
            told = self.model.encode_prompt([self.inversion_prompt])
        usual = 0.0 if self.published else 1.0
        scale = run.scale(usual if self.inversion_guidance_scale is None else self.inversion_guidance_scale)
        noise = run.noise()

        def controlled(z: Latents, t: float) -> Latents:
            own = run.velocity(z, t, told, scale)
            return own + self.gamma * ((noise - z) / (1 - t) - own)

        states = recording(run.clean, 0.0)
        if not self.published:
            integrate(controlled, run.clean, run.grid.reversed(), Euler(), callback=states.keep)
            return Path(states)
        z = run.clean
        for i, (t0, t1) in enumerate(run.grid.steps()):
            z = z + (t0 - t1) * controlled(z, i / (run.grid.num_steps + 1))
        states.put(1.0, z)
        return Path(states)
