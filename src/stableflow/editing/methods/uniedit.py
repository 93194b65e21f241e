"""Uni-Edit: a step corrected and fused by how much the two prompts disagree, and where."""

from dataclasses import dataclass

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED, spread, under_both
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import UniInv
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("uniedit", paper="arXiv:2504.13109", good_for="few steps; strong local changes of a real picture, mask-free")
@dataclass(frozen=True)
class UniEdit(Editor):
    """v = v_source + m d + omega (1 + m) d, with d = v_edit - v_source at the same state and m = spread(|d|) in [0, 1].

    m is where the prompts disagree; there the edit's velocity takes over, elsewhere the source's goes on. From part of
    the way to the noise, which `UniInv` finds: few steps fix what a flow draws, so that starting late is not enough.

    Args:
        strength: Share of the steps that are walked, at least one, instead of `share`.
        num_steps: Of the whole grid.
        share: Of the steps that are walked.
        omega: Correction along d.
        guidance_scale: Of the edit's prompt.

    Source: Jiao et al., "UniEdit-Flow: Unleashing Inversion and Editing in the Era of Flow Models" (ICLR 2026),
    arXiv:2504.13109. The release averages |d| over the channels of a token, here over those of a latent pixel.
    """

    num_steps: int = 15
    share: float = 0.6
    omega: float = 5.0
    guidance_scale: float | None = UNGUIDED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("share", self.share, 0, 1, above=True)
        check_number("omega", self.omega, 0, 100)

    def times(self, run: Run) -> TimeGrid:
        return run.whole_grid(self.num_steps).share(self.share if self.strength is None else self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        own, wished = under_both(run, z, t0, self.guidance_scale)
        turn = wished - own
        where = spread(turn.abs().mean(1, keepdim=True))
        return z + (t1 - t0) * (own + where * turn + self.omega * (1 + where) * turn)

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("num_steps", "share", "strength"), lambda: self._to_noise(run)).at(t)

    def _to_noise(self, run: Run) -> Path:
        return Path(invert(run.of_source(UNGUIDED), run.clean, run.grid, UniInv()).trajectory)
