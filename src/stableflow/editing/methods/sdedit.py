"""SDEdit: add noise to the picture, then draw the edited prompt from there."""

from dataclasses import dataclass

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.run import Run
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("sdedit", paper="arXiv:2108.01073", good_for="loose changes of look; loses detail first")
@dataclass(frozen=True)
class SDEdit(Editor):
    """Start at the flow time t nearest to `strength` from z_t = (1 - t) z_0 + t noise and sample as usual.

    Args:
        strength: The time to start at: 1 forgets the picture and draws from the noise alone, little keeps nearly all
            of it. The last step is always taken, so even the smallest strength passes the model once.
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

    strength: float = 0.7
    num_steps: int = 28
    guidance_scale: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("strength", self.strength, 0, 1)
        check_steps("num_steps", self.num_steps)

    def times(self, run: Run) -> TimeGrid:
        return run.whole_grid(self.num_steps).since(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        return z + (t1 - t0) * run.of_edits(self.guidance_scale)(z, t0)

    def held(self, run: Run, t: float) -> Latents:
        noise = run.once("noise", run.noise)
        return (1 - t) * run.clean + t * noise
