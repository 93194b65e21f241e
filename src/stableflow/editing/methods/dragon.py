"""DragonDiffusion and DiffEditor: a gradient of feature likeness moves a thing, with new noise where it moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stableflow.checks import check_number, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.beside import UNGUIDED
from stableflow.editing.displaced import check_by, displaced, thing_of
from stableflow.editing.energies import led, rescaled
from stableflow.editing.path import Path
from stableflow.editing.region_energy import region_energy
from stableflow.editing.run import Run
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import FixedPoint
from stableflow.flow.stochastic import ancestral_sigma, mean
from stableflow.flow.time_grid import TimeGrid
from stableflow.region import Region
from stableflow.types import Latents
from stableflow.vital.presets import VITAL, resolve_layers

STOCHASTIC = (0.2, 0.4)  # share of the steps between which noise is new


@editor("dragon", paper="arXiv:2402.02583", good_for="a thing moved by its features; gradients, so memory (see move)")
@dataclass(frozen=True)
class Dragon(Editor):
    """v' = v + r g, g = grad_z E(z), as long as `low` to `high` of v; in some steps new noise inside the region.

    E = 4 / (1 + 4 S(new place; thing)) + 0.2 S(vacated; what stood there) + 0.8 / (1 + 4 S(vacated; background)), S the
    mean cosine, in [0, 1], of keys of the edit and of the source's path at a place (`region_energy`). Edits may act
    where the thing stood and where it goes. Where by is (0, 0), g holds the thing, or all without a region.

    Args:
        strength: Share of the steps that are walked from the noise's side: low strength starts late, on the path.
        by: Pixels (right, down) that the region's content moves.
        num_steps: Of the whole grid, in each direction.
        scale: Of E, before the ratio is clipped.
        low, high: Bounds of |r g| / |v|; where nothing moves the lower one is 0.
        share: Of the steps, from the noise on, in which g acts.
        eta: Share of new noise in the stochastic steps, 0 to 1.
        layers: Whose keys are compared: "vital", "all" or layer numbers.
        guidance_scale: Of the edits; of all else it is 1.
        seed: Of the noise; when None it follows from the source.

    Source: Mou et al., "DiffEditor" (CVPR 2024), arXiv:2402.02583, and "DragonDiffusion", arXiv:2307.02421: their move,
    its energies by region and regional noise. The ratio's bounds are Guide-and-Rescale's; keys take the place of a
    U-Net's features, and the pinned outside that of the energy for content and of the bank of keys and values.
    """

    by: Sequence[int] = (0, 0)
    num_steps: int = 28
    scale: float = 100.0
    low: float = 1.5
    high: float = 3.0
    share: float = 0.6
    eta: float = 0.4
    layers: str | Sequence[int] = VITAL
    guidance_scale: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_by(self.by)
        check_steps("num_steps", self.num_steps)
        check_number("scale", self.scale, 0, 1e6)
        check_number("low", self.low, 0, 100)
        check_number("high", self.high, self.low, 100)
        check_number("share", self.share, 0, 1)
        check_number("eta", self.eta, 0, 1)
        resolve_layers(self.model, self.layers)

    def acting(self, run: Run, region: Region | None) -> Region | None:
        return displaced(run, region, self.by, self.name)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        done = 1 - (len(run.grid.times) - 1 - run.grid.times.index(t0)) / self.num_steps
        v = run.of_edits(self.guidance_scale)(z, t0)
        if done < self.share:
            layers = resolve_layers(self.model, self.layers)
            energy = run.once("energy", lambda: region_energy(run, self._thing(run), self.by))
            _, gradient = led(run, z, t0, self.held(run, t0), layers, energy)
            low = self.low if any(self.by) else 0.0
            v = v + rescaled(self.scale * gradient * run.free, v, low, self.high)
        sigma = self.eta * ancestral_sigma(t0, t1) if STOCHASTIC[0] < done < STOCHASTIC[1] else 0.0
        stepped = mean(z, v, t0, t1, 0.0)
        if sigma == 0.0:
            return stepped
        return torch.lerp(stepped, mean(z, v, t0, t1, sigma) + sigma * run.noise(), run.free)

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("num_steps",), lambda: self._to_noise(run)).at(t)

    def _thing(self, run: Run) -> Region:
        if any(self.by):
            return thing_of(run)
        made = run.source.fingerprint
        return Region.everywhere((made.height, made.width)) if run.region is None else run.region

    def _to_noise(self, run: Run) -> Path:
        grid = run.whole_grid(self.num_steps)
        return Path(invert(run.of_source(UNGUIDED), run.clean, grid, FixedPoint()).trajectory)
