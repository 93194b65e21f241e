"""The way from a picture to its noise, as a sampler that ComfyUI runs, and the source made of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stableflow.flow.integrate import StepRecord
from stableflow.flow.inversion import Inversion, invert
from stableflow.flow.solvers import FixedPoint
from stableflow.flow.time_grid import TimeGrid

from .recording import Recorder
from .source import ComfySource, Moment


class Inverting:
    """ComfyUI's sampler function that walks from t = 0 to noise by the library's inversion.

    Args:
        grid: The grid of the later sampling, from noise to picture.
        nudge: The factor on the picture's latents.
        iterations: Of the fixed point in each step.
    """

    def __init__(self, grid: TimeGrid, nudge: float, iterations: int):
        self._grid, self._nudge, self._iterations = grid, nudge, iterations
        self.found: Inversion | None = None

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
    ) -> Tensor:
        def velocity(z: Tensor, t: float) -> Tensor:
            denoised = model(z, z.new_full((z.shape[0],), t), **(extra_args or {}))
            return (z - denoised) / t  # a flow's answer is z - t v

        def told(record: StepRecord) -> None:
            if callback is not None:
                callback({"i": record.index, "denoised": record.estimate(), "x": record.latents})

        self.found = invert(velocity, x * self._nudge, self._grid, FixedPoint(self._iterations), callback=told)
        return x


def of_inversion(found: Inversion, recorder: Recorder, grid: TimeGrid, nudge: float) -> ComfySource:
    """Return the source that an inversion found."""
    moments = {}
    for (sigma, occurrence), heard in recorder.seen.items():
        state, offset = found.trajectory.at(sigma), found.offsets[sigma]
        moments[sigma, occurrence] = Moment(sigma, state, heard.answer - offset, offset, heard.asked)
    return ComfySource(moments, found.trajectory.at(0.0), torch.tensor(grid.times), recorder.store, nudge)


def of_sampling(picture: Tensor, recorder: Recorder, sigmas: Tensor) -> ComfySource:
    """Return the source that a sampler drew."""
    moments = {
        (sigma, occurrence): Moment(sigma, heard.x, heard.answer, None, heard.asked)
        for (sigma, occurrence), heard in recorder.seen.items()
    }
    return ComfySource(moments, picture, sigmas, recorder.store)
