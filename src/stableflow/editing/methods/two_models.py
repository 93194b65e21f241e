"""SINE: the edit's prompt on one model is guided by the source's prompt on another, a LoRA apart, in one pass."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import FixedPoint
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Adaptable, Conditioning
from stableflow.types import Latents


@editor("two-models", paper="arXiv:2212.04489", good_for="a LoRA in the edits alone, or one that knows the source")
@dataclass(frozen=True)
class TwoModels(Editor):
    """v = (1 - mix) v(edit; edit_adapter) + mix v(source; source_adapter) for t >= until, below it the edit's alone.

    Both are rows of one pass in which the model's LoRA acts with these weights, 0 being the model without it. With a
    LoRA that was fitted to the picture, 1 for the source and 0 for the edit are SINE's two models; 0 and 1 bring a
    LoRA's style or thing into a picture that the model without it keeps. It starts from the source's noise by the
    source's model; where both are one model, the source's prompt returns it.

    Args:
        strength: Share of the steps that are walked, at least one; all when None.
        num_steps: Of the whole grid, in each direction.
        mix: Share of the source's velocity.
        until: Flow time down to which it acts.
        source_adapter, edit_adapter: Weights of the LoRA in the two rows, and in the inversion that of the source; 1
            when None, and without a LoRA both must be.
        guidance_scale: Of both; of the inversion it is 1.

    Source: Zhang et al., "SINE: SINgle Image Editing with Text-to-Image Diffusion Models" (CVPR 2023),
    arXiv:2212.04489. There edits start from fresh noise, which here is the source's; the fine-tuning is left to others.
    """

    num_steps: int = 28
    mix: float = 0.6
    until: float = 0.6
    source_adapter: float | None = None
    edit_adapter: float | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("mix", self.mix, 0, 1)
        check_number("until", self.until, 0, 1)
        for name in ("source_adapter", "edit_adapter"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0, 10)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        aligned, rows, source = z + self._path(run).offsets[t0], len(z), run.source.conditioning
        scales = run.scales(self.guidance_scale)
        if self.mix == 0 or t0 < self.until:
            with self._adapting(edits=rows):
                return z + (t1 - t0) * run.velocity(aligned, t0, run.edits, scales)
        both = run.once("both rows", lambda: Conditioning.concat([run.edits, *[source] * rows]))
        every = None if scales is None else [*scales, *scales]
        with self._adapting(edits=rows, sources=rows):
            edits, sources = run.velocity(torch.cat([aligned, aligned]), t0, both, every).chunk(2)
        return z + (t1 - t0) * torch.lerp(edits, sources, self.mix)

    def held(self, run: Run, t: float) -> Latents:
        return self._path(run).at(t)

    def _path(self, run: Run) -> Path:
        return run.path(("num_steps", "source_adapter"), lambda: self._to_noise(run))

    def _to_noise(self, run: Run) -> Path:
        with self._adapting(sources=1):
            found = invert(run.of_source(UNGUIDED), run.clean, run.whole_grid(self.num_steps), FixedPoint())
        return Path(found.trajectory, found.offsets)

    def _adapting(self, edits: int = 0, sources: int = 0) -> AbstractContextManager[None]:
        if self.source_adapter is None and self.edit_adapter is None:
            return nullcontext()
        if not isinstance(self.model, Adaptable):
            raise InputError(f"{self.model.name} does not switch adapters by row; leave their weights out.")
        of_edit, of_source = (1.0 if w is None else w for w in (self.edit_adapter, self.source_adapter))
        return self.model.adapting([of_edit] * edits + [of_source] * sources)
