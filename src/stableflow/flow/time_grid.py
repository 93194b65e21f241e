"""The flow times that an integration visits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from stableflow.errors import InputError


@dataclass(frozen=True)
class TimeGrid:
    """Strictly monotonic flow times; from 1 (noise) to 0 (image) when sampling, the reverse when inverting.

    Args:
        times: At least two times in [0, 1]. diffusers' shifted `sigmas`, closing 0 included, are such times.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times) < 2:
            raise InputError(f"A time grid needs at least two times, got {len(self.times)}.")
        if not all(math.isfinite(t) and 0.0 <= t <= 1.0 for t in self.times):
            raise InputError(f"Flow times lie in [0, 1] (1 is noise, 0 is the image), got {self.times}.")
        steps = [t1 - t0 for t0, t1 in self.steps()]
        if not (all(step < 0 for step in steps) or all(step > 0 for step in steps)):
            raise InputError(f"Flow times must strictly rise or strictly fall, got {self.times}.")

    @property
    def num_steps(self) -> int:
        return len(self.times) - 1

    def steps(self) -> Iterator[tuple[float, float]]:
        """Yield the pairs (t0, t1) in the order of integration."""
        return zip(self.times[:-1], self.times[1:])

    def reversed(self) -> "TimeGrid":
        """Return the same times in the opposite direction: sampling becomes inversion."""
        return TimeGrid(self.times[::-1])

    def last(self, num_steps: int) -> "TimeGrid":
        """Return the last steps alone: editors that begin on the way leave out the noisier ones."""
        return TimeGrid(self.times[self.num_steps - num_steps :])

    def share(self, strength: float) -> "TimeGrid":
        """Return the last `strength` of the steps; one is always left."""
        return self.last(max(1, round(strength * self.num_steps)))

    def since(self, t: float) -> "TimeGrid":
        """Return the steps from the time nearest to t; the last one is always left."""
        first = min(range(self.num_steps), key=lambda i: abs(self.times[i] - t))
        return TimeGrid(self.times[first:])


def linear_time_grid(num_steps: int) -> TimeGrid:
    """Return `num_steps` equal steps from noise to image."""
    if num_steps < 1:
        raise InputError(f"num_steps must be 1 or more, got {num_steps}.")
    return TimeGrid(tuple(1 - i / num_steps for i in range(num_steps)) + (0.0,))
