"""SAM-Flow: FlowEdit where words that change are attended to, anchored to the source everywhere else."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count, check_steps, check_texts
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import difference, spread
from stableflow.editing.looking import split_words
from stableflow.editing.run import Run
from stableflow.editing.softening import Map, Softened, blurred, softened
from stableflow.editing.word_maps import Asked, WordMaps, tokens_of
from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents

SLACK, IN_RING = 0.05, 0.35


@editor("sam-flow", paper="arXiv:2606.06228", good_for="words swapped in place; or name the words that stay")
@dataclass(frozen=True)
class SAMFlow(Editor):
    """FlowEdit's steps f, evaluated at x + (0.05 + 0.95 W) (f - x), with x the source and W where words change.

    W is read from the attention of image tokens to words: the union of the words lost in the source's row and of the
    new ones in the edit's, or all but the words that `stay`. It is softened (`softened`), and what was open once stays
    open. At the end the core of W is f, its ring 0.35 W of the way, and all else the source.

    Args:
        strength: Share of the steps that are walked: n_max = strength x num_steps, at least 1. Instead of n_max.
        stay: Words of the source's prompt whose places stay; empty for all places where a changed word shows.
        num_steps, n_max, n_avg, source_guidance_scale, target_guidance_scale, seed: As in `FlowEdit`.

    Source: Cui et al., "SAM-Flow: Source-Anchored Masked Flow for Training-Free Image Editing", arXiv:2606.06228, and
    its release's parameters for FLUX.1. There a first edit by FlowEdit is looked at for the new words, under one noise
    and in passes of their own; here the passes of the steps themselves are read, so that none is added.
    """

    stay: Sequence[str] = ()
    num_steps: int = 28
    n_max: int = 26
    n_avg: int = 8
    source_guidance_scale: float = 1.5
    target_guidance_scale: float = 10.5
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_count("n_avg", self.n_avg)
        if not 1 <= check_count("n_max", self.n_max, 0) <= self.num_steps:
            raise InputError(f"n_max must lie in 1..num_steps, got {self.n_max} of {self.num_steps} steps.")
        object.__setattr__(self, "stay", check_texts("stay", self.stay))

    def times(self, run: Run) -> TimeGrid:
        walked = self.n_max if self.strength is None else max(1, round(self.strength * self.num_steps))
        return run.whole_grid(self.num_steps).last(walked)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        maps, opened = run.once("maps", lambda: self._maps(run)), self._opened(run)
        anchored = z if not opened else run.clean + (SLACK + (1 - SLACK) * opened[-1].weight) * (z - run.clean)
        with maps.reading():
            turn = difference(run, anchored, t0, self.source_guidance_scale, self.target_guidance_scale, self.n_avg)
        done = (self.num_steps - run.grid.num_steps + run.grid.times.index(t0)) / self.num_steps
        now = softened(self._changing(blurred(maps.taken(), done)), done).at((z.shape[-2], z.shape[-1]))
        opened.append(now if not opened else opened[-1] | now)
        return z + (t1 - t0) * turn

    def finish(self, run: Run, z: Latents) -> Latents:
        opened = self._opened(run)[-1].joined() if run.together else self._opened(run)[-1]
        ring = (opened.ring - opened.core).clamp(0, 1)
        return run.clean + (opened.core + ring * IN_RING * opened.weight) * (z - run.clean)

    def held(self, run: Run, t: float) -> Latents:
        return run.clean

    def _opened(self, run: Run) -> list[Softened]:
        return run.once("opened", list)

    def _maps(self, run: Run) -> WordMaps:
        """Two maps an edit: of words in the source's row, and of new words in its own."""
        source, asked = run.source.conditioning.prompts[0], []
        for row, edited in enumerate(run.edits.prompts, 1):
            lost = list(self.stay) or split_words(source, edited)[1]
            new = [] if self.stay else split_words(edited, source)[1]
            asked += [Asked(0, tokens_of(run, source, lost)), Asked(row, tokens_of(run, edited, new))]
        return WordMaps(run, asked)

    def _changing(self, maps: Float[Tensor, "maps 1 height width"]) -> Map:
        """Return where edits may act, in [0, 1], from the maps of each."""
        before, after = spread(maps[::2]), spread(maps[1::2])
        return 1 - before if self.stay else torch.maximum(before, after)
