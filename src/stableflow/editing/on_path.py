"""What editors share that move from the source's own noise as the source moved."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from stableflow.editing.base import Editor
from stableflow.editing.fingerprint import ENCODED
from stableflow.editing.making import find_path
from stableflow.editing.path import edit_solver
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.flow.inversion import unnudge
from stableflow.flow.solvers import Solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents, Velocity

REAL_EDIT_GUIDANCE = 3.0  # the paper's, for edits of an inverted picture


@dataclass(frozen=True)
class OnPath(Editor, ABC):
    """Edits that start on the source's path and take its solver's steps under their own prompts.

    Args:
        guidance_scale: For all edits, or one an edit. By default the source's own, and 3 for a real picture.
    """

    guidance_scale: float | Sequence[float] | None = None

    needs_path: ClassVar[bool] = True

    def prepared(self, run: Run) -> Source:
        source = run.source
        if source.fingerprint.inversion != ENCODED:
            return source
        how, recording = self.inverting(), self.recording()
        found = source.keep(("inverted", how, recording), lambda: find_path(self.model, source, how, recording))
        run.nfe["source"] = found.nfe
        return replace(found.to(self.model.device), kept=source.kept)

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid

    def start(self, run: Run) -> Latents:
        rows = len(run.edits) + shares_batch(run)
        return run.source.path.at(run.grid.times[0]).expand(rows, -1, -1, -1)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        velocity = run.once("velocities", lambda: self.velocities(run))
        return run.advance(run.once("solver", lambda: self.solver(run)), velocity, z, t0, t1)

    def velocities(self, run: Run) -> Velocity:
        """Return the velocity of all rows: the edits', and before them the source's where it shares their batch."""
        made, guidance = run.source.fingerprint, self.guidance(run)
        return run.of_both(made.guidance_scale, guidance) if shares_batch(run) else run.of_edits(guidance)

    def finish(self, run: Run, z: Float[Tensor, "rows channels latent_height latent_width"]) -> Latents:
        return unnudge(z[-len(run.edits) :], run.source.fingerprint.nudge_scale)

    def solver(self, run: Run) -> Solver:
        """Return what moves the edits."""
        return edit_solver(run.source.fingerprint, run.source.path, shared=shares_batch(run))

    def guidance(self, run: Run) -> float | Sequence[float] | None:
        """Return the scale of the edits."""
        if self.guidance_scale is not None:
            return self.guidance_scale
        made = run.source.fingerprint
        real = made.inversion is not None and made.guidance_scale is not None
        return REAL_EDIT_GUIDANCE if real else made.guidance_scale


def shares_batch(run: Run) -> bool:
    """Whether the source is row 0 of the edits' batch, for want of recorded keys and values."""
    return run.source.store is None
