"""LoMOE's fusion: several things changed in one pass, each in its own region under its own prompt."""

from dataclasses import dataclass

import torch

from stableflow.checks import check_number
from stableflow.editing.base import editor
from stableflow.editing.on_path import OnPath
from stableflow.editing.run import Run
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("lomoe", paper="arXiv:2403.00437", good_for="several regions with several prompts, with together=True")
@dataclass(frozen=True)
class LoMOE(OnPath):
    """Euler's step for each prompt from the source's noise; after it the rows are laid over one another (`Run.settle`).

    In the first steps each prompt sees, outside its region, noised plain colour, so that its thing comes to lie inside.

    Args:
        strength: Flow time to start at, on the source's path; 1, its noise, when None.
        bootstrap: Share of the steps with plain colour.
        seed: Of the colour; when None it follows from the source.

    Example:
        >>> from stableflow.editing.wishes import Edit
        >>> editor = LoMOE(load("tiny"))
        >>> source = editor.generate("a dog standing on the grass", seed=1)
        >>> wishes = [Edit("a red dog", region="box:0,0,32,64"), Edit("snow", region="box:32,0,32,64")]
        >>> editor.edit(source, wishes, together=True).images.shape
        torch.Size([1, 3, 64, 64])

    Source: Chakrabarty et al., "LoMOE: Localized Multi-Object Editing via Multi-Diffusion" (ACM MM 2024),
    arXiv:2403.00437, its bootstrapping and fusion. Its two losses keep the background, which is pinned here instead.
    """

    bootstrap: float = 0.4
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("bootstrap", self.bootstrap, 0, 1)

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid if self.strength is None else run.source.grid.since(self.strength)

    def start(self, run: Run) -> Latents:
        return run.rows(run.source.path.at(run.grid.times[0]))

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        if run.grid.times.index(t0) < round(self.bootstrap * run.grid.num_steps):
            z = torch.lerp(self._noised_colour(run, t0), z, run.free)
        return z + (t1 - t0) * run.of_edits(self.guidance(run))(z, t0)

    def _noised_colour(self, run: Run, t: float) -> Latents:
        return (1 - t) * run.once("colour", lambda: self._colour(run)) + t * run.source.noise

    def _colour(self, run: Run) -> Latents:
        made = run.source.fingerprint
        colour = torch.special.ndtr(run.noise().flatten()[:3])  # uniform in [0, 1]
        plain = colour.reshape(1, 3, 1, 1).expand(1, 3, made.height, made.width)
        return self.model.encode_image(plain) * made.nudge_scale
