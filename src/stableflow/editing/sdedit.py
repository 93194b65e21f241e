"""SDEdit: add noise to the picture, then draw the edited prompt from there."""

from collections.abc import Sequence
from dataclasses import dataclass

from stableflow.editing.base import EDITORS
from stableflow.editing.picture import Run, check_num_steps, draw, encode
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, integrate
from stableflow.flow.solvers import Euler
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Conditioning, FlowModel


@EDITORS.register("sdedit")
@dataclass(frozen=True)
class SDEdit:
    """Start at the flow time t nearest to `strength` from z_t = (1 - t) z_0 + t noise and sample as usual.

    Args:
        model: From `load` or `wrap`.
        strength: In (0, 1]: 1 forgets the picture and draws from the noise alone, little keeps nearly all of it. The
            last step is always taken, so even the smallest strength passes the model once.
        num_steps: Of the whole grid; the part above `strength` is not walked.
        guidance_scale: The model's usual scale when None.
        seed: Of the noise; when None it follows from the source (and is not the source's own).

    Example:
        >>> editor = SDEdit(load("tiny"), strength=0.8)
        >>> source = editor.generate("a dog standing on the grass", seed=1)
        >>> editor.edit(source, ["a cat standing on the grass"]).images.shape
        torch.Size([1, 3, 64, 64])

    Source: Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations" (ICLR
    2022), arXiv:2108.01073. There it is the reverse of a diffusion's SDE; here the straight path and the ODE of a
    rectified flow take its place.
    """

    model: FlowModel
    strength: float = 0.7
    num_steps: int = 28
    guidance_scale: float | None = None
    seed: int | None = None

    generate, invert = draw, encode

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)
        if not 0.0 < self.strength <= 1.0:
            raise InputError(f"strength must lie in (0, 1]: 1 keeps nothing of the picture; got {self.strength}.")

    def edit(
        self, source: Source, prompts: str | Sequence[str] | Conditioning, *, callback: Callback | None = None
    ) -> EditResult:
        """Draw the edits of a source, all in one batch; see `Run` for what it raises."""
        run = Run(self, source, prompts)
        times = run.grid(self.num_steps).times
        start = min(range(self.num_steps), key=lambda i: abs(times[i] - self.strength))
        t = times[start]
        noisy = (1 - t) * run.clean + t * run.noise(run.generator(self.seed))
        velocity = run.velocity(run.edits, run.guidance(self.guidance_scale))
        return run.result(integrate(velocity, run.rows(noisy), TimeGrid(times[start:]), Euler(), callback=callback))
