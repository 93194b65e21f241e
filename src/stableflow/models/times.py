"""The times that a pipeline's own scheduler visits."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid

TIMESTEPS = 1000  # diffusers' `timestep` is t * 1000


def shift_for(scheduler: Any, image_tokens: int, max_shift: float = 1.15) -> float:
    """Return diffusers' `mu`, linear in the number of image tokens; `max_shift` where the scheduler names none."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = scheduler.config
    return calculate_shift(
        image_tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", max_shift),
    )


def flow_times(
    scheduler: Any, num_steps: int, *, mu: float | None = None, sigmas: Sequence[float] | None = None
) -> TimeGrid:
    """Return the times that the pipeline's scheduler would visit.

    Args:
        mu: Shift, where the scheduler shifts by size.
        sigmas: Unshifted times that the pipeline passes; the scheduler's own when None.
    """
    own = type(scheduler).from_config(scheduler.config)  # a scheduler keeps state; the pipeline's stays untouched
    shift = {} if mu is None else {"mu": mu}
    if sigmas is None:
        own.set_timesteps(num_steps, **shift)
    else:
        own.set_timesteps(sigmas=sigmas, **shift)
    times = tuple(own.sigmas.tolist())
    if any(math.isnan(t) for t in times):
        raise InputError(
            f"This checkpoint's scheduler cannot make {num_steps} step(s): it stretches its times to end at "
            f"shift_terminal={scheduler.config.get('shift_terminal')}, which needs two or more."
        )
    return TimeGrid(times)


def even_sigmas(num_steps: int) -> Sequence[float]:
    """Return 1 ... 1 / num_steps, which most pipelines start from."""
    return np.linspace(1.0, 1 / num_steps, num_steps).tolist()


def shifted_by_size(scheduler: Any, num_steps: int, image_tokens: int) -> TimeGrid:
    """The usual: even times, shifted by the number of image tokens."""
    return flow_times(scheduler, num_steps, mu=shift_for(scheduler, image_tokens), sigmas=even_sigmas(num_steps))
