"""SteerFlow: the edit's velocity is mixed, where and as far as it differs, into the source's, known from its path."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED, spread
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import UniInv
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents

STEEPNESS, CLOSING, QUANTILE = 15.0, 5, 0.95


@editor("steerflow", paper="arXiv:2604.01715", good_for="real pictures kept closely, mask-free, one pass a step")
@dataclass(frozen=True)
class SteerFlow(Editor):
    """v = v_source + m w (v_edit - v_source), from the source's noise.

    v_source is the slope of the source's stored path, so it costs nothing; w = (1 - t1^decay) cos(v_edit, v_source),
    and m is near 1 where the two differ most: sigmoid(15 (spread(|v_edit - v_source|) - 1/2)), its holes closed.

    Args:
        strength: Share of the steps that are walked, at least one; all when None.
        num_steps: Of the whole grid, in each direction.
        decay: Larger lets the edit act earlier, and more.
        guidance_scale: Of the edits; of the inversion it is 1.

    Source: Dao et al., "SteerFlow: Steering Rectified Flows for Faithful Inversion-Based Image Editing",
    arXiv:2604.01715, without its segmentation by concept. Its defaults for FLUX.1.
    """

    num_steps: int = 15
    decay: float = 4.5
    guidance_scale: float | None = 3.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("decay", self.decay, 0, 100, above=True)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        own = (self.held(run, t1) - self.held(run, t0)) / (t1 - t0)
        turn = run.of_edits(self.guidance_scale)(z, t0) - own
        alike = torch.cosine_similarity(own + turn, own, dim=1).mean((-2, -1)).reshape(-1, 1, 1, 1)
        amount = (1 - t1**self.decay) * alike
        return z + (t1 - t0) * (own + changing(turn) * amount * turn)

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("strength", "num_steps"), lambda: self._to_noise(run)).at(t)

    def _to_noise(self, run: Run) -> Path:
        return Path(invert(run.of_source(UNGUIDED), run.clean, run.grid, UniInv()).trajectory)


def changing(turn: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Return, in [0, 1], where velocities differ most; holes up to the closing's width are filled."""
    where = torch.sigmoid(STEEPNESS * (spread(turn.norm(dim=1, keepdim=True), quantile=QUANTILE) - 0.5))
    grown = F.max_pool2d(where, CLOSING, stride=1, padding=CLOSING // 2)
    return -F.max_pool2d(-grown, CLOSING, stride=1, padding=CLOSING // 2)
