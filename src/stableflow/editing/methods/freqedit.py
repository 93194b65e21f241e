"""FreqEdit: in the first steps the details of the velocity are those that lead to the source's picture."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count, check_number
from stableflow.editing.bands import with_details
from stableflow.editing.base import editor
from stableflow.editing.beside import spread
from stableflow.editing.on_path import OnPath
from stableflow.editing.run import Run
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("freqedit", paper="arXiv:2512.01755", good_for="loose edits whose fine detail stays the source's")
@dataclass(frozen=True)
class FreqEdit(OnPath):
    """v' has v's lowest wavelet band, and details (1 - A) v + A v_ref, with v_ref = (z - source) / t.

    A = base (exp(gamma (1 - spread(|v - v_ref|))) - 1): large where the edit's velocity leads to the source anyway.
    Every few steps what was taken from v is given back: z += sum of (t1 - t0) (v - v').

    Args:
        strength: Flow time to start at, on the source's path; 1, its noise, when None.
        share: Of the steps, from the first on, in which details are held; the others are re-prompting.
        base, gamma: Of A.
        levels: Of the wavelets; each takes details twice as large.
        back: Steps after which what was taken is given back.

    Source: Liao et al., "FreqEdit: Preserving High-Frequency Features for Robust Multi-Turn Image Editing" (CVPR 2026),
    arXiv:2512.01755, and its release's parameters. There it holds a trained editor's turns by the picture that they
    start from, and leads late steps to the first turn's picture; here it holds the edits of a text-to-image model.
    """

    share: float = 0.3
    base: float = 1.2
    gamma: float = 1.5
    levels: int = 2
    back: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("share", self.share, 0, 1)
        check_number("base", self.base, 0, 100)
        check_number("gamma", self.gamma, 0, 100)
        check_count("levels", self.levels, 1, 5)
        check_count("back", self.back)

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid if self.strength is None else run.source.grid.since(self.strength)

    def start(self, run: Run) -> Latents:
        return run.rows(run.source.path.at(run.grid.times[0]))

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        v, held = run.of_edits(self.guidance(run))(z, t0), round(self.share * run.grid.num_steps)
        i = run.grid.times.index(t0)
        if i >= held:
            return z + (t1 - t0) * v
        towards = (z - run.source.path.at(0.0)) / t0
        details = with_details(v, towards, self.amounts(v, towards), self.levels)
        owed: list[Tensor] = run.once("owed", list)
        owed.append((t1 - t0) * (v - details))
        z = z + (t1 - t0) * details
        if len(owed) == self.back or i == held - 1:
            z = z + torch.stack(owed).sum(0)
            owed.clear()
        return z

    def amounts(self, v: Latents, towards: Latents) -> Float[Tensor, "batch 1 latent_height latent_width"]:
        """Return A."""
        near = 1 - spread((v - towards).norm(dim=1, keepdim=True))
        return self.base * (torch.exp(self.gamma * near) - 1)
