"""FlowAlign: FlowEdit's walk, guided away from the source's prompt, with a pull of the edit's image to the source's."""

from dataclasses import dataclass

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED, under_both
from stableflow.editing.prompts import source_prompt
from stableflow.editing.run import Run
from stableflow.flow.stochastic import image_of
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Conditioning
from stableflow.types import Latents


@editor("flowalign", paper="arXiv:2505.23145", good_for="real pictures without inversion, kept closely; a fine dial")
@dataclass(frozen=True)
class FlowAlign(Editor):
    """z += (t1 - t0)(v_p - v_q) + pull (image(q) - image(p)), from z = z_0, with fresh noise at every step:

    q = (1 - t) z_0 + t noise, p = q + (z - z_0), v_q = v(q; source), v_p = v(p; source) + w (v(p; edit) - v(p; source))

    Args:
        strength: Share of w; all when None. The dial is smooth, since every strength walks the same steps.
        num_steps: All are walked.
        weight: w, how far the edit's prompt leads away from the other.
        pull: Of the edit's image to the source's, a step. More keeps more.
        opposite: A prompt that takes the source's place in v_p. With pull=0 this is FlowSlider, v(p; opposite) - v_q
            keeping and w (v(p; edit) - v(p; opposite)) steering.
        seed: Of the noises; when None it follows from the source (and is not the source's own).

    Source: Kim et al., "FlowAlign: Trajectory-Regularized, Inversion-Free Flow-based Image Editing" (ICLR 2026),
    arXiv:2505.23145; "FlowSlider", arXiv:2604.02088. Prompts are not guided but by w, as there.
    """

    num_steps: int = 33
    weight: float = 7.0
    pull: float = 0.01
    opposite: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("weight", self.weight, 0, 100)
        check_number("pull", self.pull, 0, 1)
        if self.opposite is not None:
            source_prompt(self.model, self.opposite)

    def times(self, run: Run) -> TimeGrid:
        return run.whole_grid(self.num_steps)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        q = run.noised(t0)
        p = q + (z - run.clean)
        v_q = run.of_source(UNGUIDED)(q, t0)
        other, wished = under_both(run, p, t0, away=run.once("away", self._away))
        weight = self.weight * (1.0 if self.strength is None else self.strength)
        v_p = other + weight * (wished - other)
        return z + (t1 - t0) * (v_p - v_q) + self.pull * (image_of(q, v_q, t0) - image_of(p, v_p, t0))

    def held(self, run: Run, t: float) -> Latents:
        return run.clean

    def _away(self) -> Conditioning | None:
        return None if self.opposite is None else source_prompt(self.model, self.opposite)
