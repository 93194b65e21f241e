"""Negative-prompt inversion: guidance that leads away from the source's own prompt, from its inversion without any."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stableflow.checks import check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.path import Path
from stableflow.editing.prompts import with_negative
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import FixedPoint
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents

UNGUIDED = 1.0


@editor("npi", paper="arXiv:2305.16807", good_for="strong guidance on a real picture, where there is a negative prompt")
@dataclass(frozen=True)
class NegativePromptInversion(Editor):
    """v = v(source's prompt) + guidance_scale (v(edit's prompt) - v(source's prompt)), on the source's inverted path.

    Where the edit's prompt is the source's, the scale has no effect and the path is retraced exactly: what null-text
    inversion optimises for is had for nothing. Only for families with classifier-free guidance.

    Args:
        strength: Share of the steps that are walked, at least one; all when None.
        num_steps: Of the whole grid, in each direction.
        guidance_scale: For all edits, or one an edit; the model's usual scale when None.
        negative: Not taken: the source's prompt is the negative one.

    Source: Miyake et al., "Negative-prompt Inversion: Fast Image Inversion for Editing with Text-guided Diffusion
    Models" (WACV 2025), arXiv:2305.16807. The inversion is by the fixed-point step here, and its replay aligned, so
    that the source is exact, not nearly so.
    """

    num_steps: int = 50
    guidance_scale: float | Sequence[float] | None = None

    needs_negative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        if self.negative is not None:
            raise InputError("npi leads away from the source's own prompt; leave the negative prompt out.")

    def prepared(self, run: Run) -> Source:
        run.once("told", lambda: with_negative(run.edits, run.source.conditioning))
        return run.source

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        told = run.once("told", lambda: with_negative(run.edits, run.source.conditioning))
        aligned = z + self._path(run).offsets[t0]  # v is asked for where the inversion asked for it
        return z + (t1 - t0) * run.velocity(aligned, t0, told, run.scales(self.guidance_scale))

    def held(self, run: Run, t: float) -> Latents:
        return self._path(run).at(t)

    def _path(self, run: Run) -> Path:
        return run.path(("strength", "num_steps"), lambda: self._to_noise(run))

    def _to_noise(self, run: Run) -> Path:
        found = invert(run.of_source(UNGUIDED), run.clean, run.grid, FixedPoint())
        return Path(found.trajectory, found.offsets)
