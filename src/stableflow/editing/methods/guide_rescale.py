"""Guide-and-Rescale: features are led back to the source's by a gradient whose length follows the edit's own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED
from stableflow.editing.energies import led, rescaled
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import FixedPoint
from stableflow.flow.time_grid import TimeGrid
from stableflow.types import Latents
from stableflow.vital.presets import VITAL, resolve_layers


@editor("guide-rescale", paper="arXiv:2409.01322", good_for="layout led, not replaced; needs gradients, so memory")
@dataclass(frozen=True)
class GuideAndRescale(Editor):
    """v = v_edit + r g, g = grad_z E(z), r = clip(|g| / |d|, low, high) |d| / |g|, d = v_edit - v_source.

    E is the mean squared difference of keys in some layers, under the source's prompt, between z and the source's path.
    The clipped ratio makes g as long as the edit's own push, whatever the units of E. In the first step both are equal.

    Args:
        strength: Takes (1 - strength) of r. 1 is the edit's velocity alone, as re-prompting has it.
        num_steps: Of the whole grid, in each direction.
        scale: Of E, before the ratio is clipped.
        low, high: Bounds of the ratio.
        share: Of the steps, from the noise on, in which g acts.
        layers: Whose keys are compared: "vital", "all" or layer numbers.
        guidance_scale: Of the edits; the model's usual scale when None.

    Source: Titov et al., "Guide-and-Rescale" (ECCV 2024), arXiv:2409.01322, in flow form. There E compares attention
    maps and features of a U-Net.
    """

    num_steps: int = 28
    scale: float = 100.0
    low: float = 0.33
    high: float = 3.0
    share: float = 0.6
    layers: str | Sequence[int] = VITAL
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_number("scale", self.scale, 0, 1e6)
        check_number("low", self.low, 0, 100)
        check_number("high", self.high, 0, 100)
        check_number("share", self.share, 0, 1)
        if self.low > self.high:
            raise InputError(f"low must not be above high, got {self.low} and {self.high}.")
        resolve_layers(self.model, self.layers)

    def start(self, run: Run) -> Latents:
        return run.rows(self.held(run, 1.0))

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        v = run.of_edits(self.guidance_scale)(z, t0)
        part = 1.0 if self.strength is None else 1 - self.strength
        if part == 0 or t0 == run.grid.times[0] or t0 <= run.grid.times[round(self.share * run.grid.num_steps)]:
            return z + (t1 - t0) * v
        own, gradient = self._led(run, z, t0)
        return z + (t1 - t0) * (v + part * rescaled(self.scale * gradient, v - own, self.low, self.high))

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("num_steps",), lambda: self._to_noise(run)).at(t)

    def times(self, run: Run) -> TimeGrid:
        return run.whole_grid(self.num_steps)

    def _to_noise(self, run: Run) -> Path:
        return Path(invert(run.of_source(UNGUIDED), run.clean, run.grid, FixedPoint()).trajectory)

    def _led(self, run: Run, z: Latents, t: float) -> tuple[Latents, Latents]:
        """Return the source's velocity at the edits' states, and the gradient of E there."""
        return led(run, z, t, self.held(run, t), resolve_layers(self.model, self.layers), _apart)


def _apart(keys: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return E."""
    return torch.stack([(own - known).square().mean((1, 2)).sum() for own, known in zip(keys, wanted)]).mean()
