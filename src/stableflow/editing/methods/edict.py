"""EDICT: inversion that is exact by its step's algebra, with guidance in both directions."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers.edict import Coupled
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import recording
from stableflow.types import Latents

MIXING, AT_STEPS = 0.97, 28
USUAL_STRENGTH = 0.8


@editor("edict", paper="arXiv:2211.12446", good_for="structure kept strictly, at two passes a step; weak changes")
@dataclass(frozen=True)
class EDICT(Editor):
    """A pair of states is taken to noise under the source's prompt and back under the edit's, by `Coupled` steps.

    Nothing but the noise is carried over: with the source's own prompt the way back is the way there, to rounding. Both
    states start as the picture; the first of them is the edit.

    Args:
        strength: Share of the steps that are walked, at least one; 0.8 when None.
        num_steps: Of the whole grid, two evaluations each.
        p: Mixing of the pair, in (0, 1]; by the number of steps when None: 0.97 at 28, and p**steps the same at all.
        guidance_scale: Of both directions alike.

    Source: Wallace et al., "EDICT: Exact Diffusion Inversion via Coupled Transformations" (CVPR 2023),
    arXiv:2211.12446, with its strength 0.8 and scale 3. Its p = 0.93 lets the pair drift apart at the noise; here it is
    nearer to 1, in flow form and at fewer steps.
    """

    num_steps: int = 28
    p: float | None = None
    guidance_scale: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        if self.p is not None:
            check_number("p", self.p, 0, 1, above=True)

    @property
    def solver(self) -> Coupled:
        """The step of both directions."""
        return Coupled(MIXING ** (AT_STEPS / self.num_steps) if self.p is None else self.p)

    def times(self, run: Run) -> TimeGrid:
        return run.whole_grid(self.num_steps).share(USUAL_STRENGTH if self.strength is None else self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        return run.advance(self.solver, run.of_edits(self.guidance_scale), z, t0, t1)

    def finish(self, run: Run, z: Float[Tensor, "rows both latent_height latent_width"]) -> Latents:
        return z.chunk(2, dim=1)[0]

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("strength", "num_steps", "p", "guidance_scale"), lambda: self._to_noise(run)).at(t)

    def _to_noise(self, run: Run) -> Path:
        pair = run.clean.repeat(1, 2, 1, 1)
        states = recording(pair, 0.0)
        velocity = run.of_source(self.guidance_scale)
        integrate(velocity, pair, run.grid.reversed(), self.solver, callback=states.keep)
        return Path(states)
