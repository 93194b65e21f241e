"""States of an integration, looked up by their time."""

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.flow.integrate import StepRecord


class Trajectory:
    """The latents at every visited flow time, in float32.

    States are found by time, never by position: an index that is off by one reads a plausible wrong state.
    """

    def __init__(self, states: dict[float, Tensor] | None = None):
        self._states: dict[float, Tensor] = dict(states or {})

    def put(self, t: float, latents: Float[Tensor, "batch channels latent_height latent_width"]) -> None:
        """Keep a float32 copy of the state at time t; a later state at the same t replaces it."""
        self._states[t] = latents.detach().to(torch.float32, copy=True)

    def keep(self, record: StepRecord) -> None:
        """Keep the state after a step: a callback of `walk`."""
        self.put(record.t1, record.latents)

    def at(self, t: float) -> Float[Tensor, "batch channels latent_height latent_width"]:
        """Return the state at exactly time t.

        Raises:
            InputError: Nothing was recorded at t; the message names the nearest recorded time.
        """
        if t not in self._states:
            nearest = min(self._states, key=lambda known: abs(known - t), default=None)
            raise InputError(
                f"No state at t={t!r} among the {len(self._states)} recorded ones; the nearest is t={nearest!r}. "
                "States are recorded at the times of one grid: use the grid that the source was made with."
            )
        return self._states[t]

    def to(self, device: torch.device | str) -> "Trajectory":
        """Return the trajectory with its states on a device."""
        return Trajectory({t: state.to(device) for t, state in self._states.items()})

    @property
    def times(self) -> tuple[float, ...]:
        """The recorded times, from noise to image."""
        return tuple(sorted(self._states, reverse=True))

    def __len__(self) -> int:
        return len(self._states)


def recording(latents: Tensor, t: float) -> Trajectory:
    """Return a trajectory that begins with this state, for the callback of a walk from there."""
    trajectory = Trajectory()
    trajectory.put(t, latents)
    return trajectory
