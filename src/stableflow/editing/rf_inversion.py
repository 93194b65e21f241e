"""RF-Inversion: both ways along the flow under a controller that pulls to a known end."""

from collections.abc import Sequence
from dataclasses import dataclass

from stableflow.editing.base import EDITORS
from stableflow.editing.picture import Run, check_num_steps, check_share, draw, encode
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, integrate
from stableflow.flow.solvers import Euler
from stableflow.models.base import Conditioning, FlowModel
from stableflow.types import Latents, Velocity


@EDITORS.register("rf-inversion")
@dataclass(frozen=True)
class RFInversion:
    """To noise by dz/dt = v + gamma ((noise - z) / (1 - t) - v), back by dz/dt = v + eta_t ((z - z_0) / t - v).

    (noise - z) / (1 - t) leads straight to a noise that was drawn, (z - z_0) / t straight to the source picture.

    Args:
        model: From `load` or `wrap`.
        gamma: Pull to typical noise while inverting, in [0, 1]. 0 inverts plainly, 1 forgets the picture.
        eta: Pull to the source picture while editing, in [0, 1]. 1 at all times returns the source.
        t_window: Flow times (low, high) in which eta acts; 1 is noise. A lower low keeps more.
        num_steps: Steps in each direction.
        inversion_prompt: What the inversion is told; the paper says nothing, "". None tells it the source's prompt.
        inversion_guidance_scale: Of the inversion.
        guidance_scale: Of the edits; the model's usual scale when None.
        seed: Of the noise; when None it follows from the source (and is not the source's own).

    Source: Rout et al., "Semantic Image Inversion and Editing using Rectified Stochastic Differential Equations" (ICLR
    2025), arXiv:2410.10792, the controlled ODEs of inversion and editing. The paper counts time from image to noise
    in the first and from noise to image in the second; here t is flow time in both, and in the window.
    """

    model: FlowModel
    gamma: float = 0.5
    eta: float = 0.9
    t_window: tuple[float, float] = (0.75, 1.0)
    num_steps: int = 28
    inversion_prompt: str | None = ""
    inversion_guidance_scale: float = 1.0
    guidance_scale: float | None = None
    seed: int | None = None

    generate, invert = draw, encode

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)
        check_share("gamma", self.gamma)
        check_share("eta", self.eta)
        low, high = self.t_window
        if not 0.0 <= low <= high <= 1.0:
            raise InputError(f"t_window must be (low, high) with 0 <= low <= high <= 1 (1 is noise), got {low, high}.")

    def edit(
        self, source: Source, prompts: str | Sequence[str] | Conditioning, *, callback: Callback | None = None
    ) -> EditResult:
        """Invert the source, then draw its edits, all in one batch; see `Run` for what it raises."""
        run = Run(self, source, prompts)
        grid = run.grid(self.num_steps)
        structured = integrate(self._to_noise(run), run.clean, grid.reversed(), Euler())
        return run.result(integrate(self._to_edit(run), run.rows(structured), grid, Euler(), callback=callback))

    def _to_noise(self, run: Run) -> Velocity:
        told = run.source.conditioning
        if self.inversion_prompt is not None:
            told = self.model.encode_prompt([self.inversion_prompt])
        velocity = run.velocity(told, run.guidance(self.inversion_guidance_scale))
        noise = run.noise(run.generator(self.seed))

        def controlled(latents: Latents, t: float) -> Latents:
            own = velocity(latents, t)
            return own + self.gamma * ((noise - latents) / (1 - t) - own)

        return controlled

    def _to_edit(self, run: Run) -> Velocity:
        velocity = run.velocity(run.edits, run.guidance(self.guidance_scale))
        low, high = self.t_window

        def controlled(latents: Latents, t: float) -> Latents:
            own = velocity(latents, t)
            eta = self.eta if low <= t <= high else 0.0
            return own + eta * ((latents - run.clean) / t - own)

        return controlled
