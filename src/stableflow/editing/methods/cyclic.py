"""Cyclic One-Way: a scene is drawn around what stays, by going back to noise and down again, round after round."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from stableflow.checks import check_count, check_number
from stableflow.editing.base import editor
from stableflow.editing.on_path import OnPath
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.stochastic import renoised
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents


@editor("cyclic", paper="arXiv:2306.08247", good_for="a new scene around a thing that stays: region is the scene")
@dataclass(frozen=True)
class Cyclic(OnPath):
    """From low up to high, a z + sqrt(high^2 - a^2 low^2) noise, and Euler's steps down again; at last on to 0.

    At every step what lies outside the region is the source's state on its path, so that what is drawn anew grows
    around it and fits it; a = (1 - high) / (1 - low). It starts as plain grey under noise, so that of the old scene
    nothing is left. A call without a region looks for "change". Without cycles, and from the source, it is re-prompting
    from `low`.

    Args:
        strength: `high`, of which low is five sevenths, instead of both; the region then starts as the source's.
        cycles: Rounds; each takes the steps between the two times.
        high, low: Flow times between which they go; the nearest of the source's path.
        plain: Whether the region starts as grey, or as the source's.
        seed: Of the noises; when None it follows from the source.

    Source: Wang et al., "Cyclic One-Way Diffusion for Text-Vision-to-Image Generation" (ICLR 2024), arXiv:2306.08247,
    in flow form: 0.7 and 0.5 of its steps are about these flow times. There the thing may settle in the last steps,
    and prompts of their own keep a second one out of the scene.
    """

    cycles: int = 10
    high: float = 0.7
    low: float = 0.5
    plain: bool = True
    seed: int | None = None

    looks_for: ClassVar[str | None] = "change"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("cycles", self.cycles, 0, 1000)
        check_number("high", self.high, 0, 1, above=True)
        check_number("low", self.low, 0, 1, above=True)
        if self.low > self.high:
            raise InputError(f"low must not be above high, got {self.low} and {self.high}.")

    def times(self, run: Run) -> TimeGrid:
        low = self.low if self.strength is None else self.strength * 5 / 7
        return run.source.grid.since(low)

    def start(self, run: Run) -> Latents:
        low, above = run.grid.times[0], self._above(run)
        z = run.rows(self.held(run, low))
        if self.plain and self.strength is None:
            made = run.source.fingerprint
            grey = self.model.encode_image(torch.full((1, 3, made.height, made.width), 0.5)) * made.nudge_scale
            z = torch.lerp(z, (1 - low) * grey + low * run.noise(), run.free)
        for _ in range(self.cycles):
            z = run.settle(renoised(z, run.noise(), low, above[0]), above[0])
            for t0, t1 in zip(above, above[1:]):
                z = run.settle(self.step(run, z, t0, t1), t1)
        return z

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        return z + (t1 - t0) * run.of_edits(self.guidance(run))(z, t0)

    def _above(self, run: Run) -> tuple[float, ...]:
        """Return the path's times from high down to where the last steps begin; one step at the least."""
        times, low = run.source.grid.times, run.grid.times[0]
        high = self.high if self.strength is None else self.strength
        first = min(times.index(run.source.grid.since(high).times[0]), max(times.index(low) - 1, 0))
        return times[first : times.index(low) + 1]
