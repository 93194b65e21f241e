"""Null-text inversion: at every step the negative prompt is fitted so that guided sampling retraces the source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stableflow.checks import check_count, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.passes import differentiable
from stableflow.editing.path import Path
from stableflow.editing.prompts import having_negative, with_negative
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import Euler
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.guidance import NEGATIVE
from stableflow.types import Latents

RATE, CLOSE = 1e-2, 1e-5


@editor("null-text", paper="arXiv:2211.09794", good_for="guided edits of a real picture, where there is time to fit")
@dataclass(frozen=True)
class NullText(Editor):
    """Euler's steps under v_negative_t + guidance_scale (v_edit - v_negative_t), from the source's inverted noise.

    negative_t minimises |z*_{t1} - step(z)|^2 for the source's own prompt, where z* is the source's unguided path and
    z where the fit before has led; it starts from that fit. Only where guidance is classifier-free; needs gradients.

    Args:
        strength: Share of the steps that are walked, at least one; all when None.
        num_steps: Of the whole grid, in each direction.
        fits: Most steps of Adam at each time.
        guidance_scale: For all edits and the fit; the model's usual scale when None.
        negative: Not taken: it is what is fitted.

    Source: Mokady et al., "Null-text Inversion for Editing Real Images using Guided Diffusion Models" (CVPR 2023),
    arXiv:2211.09794, in flow form.
    """

    num_steps: int = 50
    fits: int = 10
    guidance_scale: float | None = None

    needs_negative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_count("fits", self.fits, 0)
        if self.negative is not None:
            raise InputError("null-text fits the negative prompt itself; leave it out.")

    def prepared(self, run: Run) -> Source:
        with_negative(run.edits, run.source.conditioning)  # refused where there is none
        return run.source

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        told = having_negative(run.edits, self._fitted(run)[t0])
        return z + (t1 - t0) * run.velocity(z, t0, told, run.scales(self.guidance_scale))

    def held(self, run: Run, t: float) -> Latents:
        return run.path(("strength", "num_steps"), lambda: self._to_noise(run)).at(t)

    def _to_noise(self, run: Run) -> Path:
        return Path(invert(run.of_source(1.0), run.clean, run.grid, Euler()).trajectory)

    def _fitted(self, run: Run) -> dict[float, dict[str, Tensor]]:
        key = (self.name, "negatives", self.strength, self.num_steps, self.fits, self.guidance_scale)
        return run.source.keep(key, lambda: self._fit(run))

    def _fit(self, run: Run) -> dict[float, dict[str, Tensor]]:
        own, z, found = run.source.conditioning, self.held(run, run.grid.times[0]), dict[float, dict[str, Tensor]]()
        told = {name: value for name, value in own.tensors.items() if name.startswith(NEGATIVE)}
        fitted = {name: value.float() for name, value in told.items() if value.is_floating_point()}
        for i, (t0, t1) in enumerate(run.grid.steps()):
            fitted, z = self._fit_one(run, fitted, z, (t0, t1), i)
            found[t0] = fitted
        return found

    def _fit_one(
        self, run: Run, start: dict[str, Tensor], z: Latents, times: Sequence[float], i: int
    ) -> tuple[dict[str, Tensor], Latents]:
        """Return the negative prompt fitted at one time, and where it leads."""
        (t0, t1), goal, scale = times, self.held(run, times[1]), run.scale(self.guidance_scale)
        fitted = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
        adam = torch.optim.Adam(fitted.values(), lr=RATE * (1 - i / run.grid.num_steps / 2))

        def stepped() -> Latents:
            told = having_negative(run.source.conditioning, fitted)
            run.nfe["edit"] += 1
            return z + (t1 - t0) * differentiable(self.model).velocity_with_grad(z, t0, told, guidance_scale=scale)

        with torch.enable_grad():
            for _ in range(self.fits):
                loss = (stepped() - goal).square().mean()
                if loss.item() < CLOSE + 2 * CLOSE * i:
                    break
                adam.zero_grad()
                loss.backward()
                adam.step()
        with torch.no_grad():
            return {name: value.detach() for name, value in fitted.items()}, stepped()
