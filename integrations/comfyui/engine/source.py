"""A source: one way between noise and picture, as ComfyUI's model was asked along it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InterventionError, TokenLayoutError
from stableflow.interventions.store import KVStore

from .warp import Warp

NEAR = 1e-5  # between two sigmas that are the same but for rounding
BRANCHES = ("conditional", "unconditional")


@dataclass(frozen=True, eq=False)
class Asked:
    """What the model was given beside latents and time: one row, one branch of guidance."""

    concat: Tensor | None
    crossattn: Tensor | None
    others: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Moment:
    """One evaluation of the model on the source's way, in the model's own scale of latents.

    Args:
        sigma: Flow time; 1 is noise.
        state: Where the source stood.
        denoised: The guided answer, as seen from there.
        offset: What was added to the state before the model was asked: aligned replay after an inversion.
        asked: By branch of guidance.
    """

    sigma: float
    state: Float[Tensor, "1 *channels height width"]
    denoised: Float[Tensor, "1 *channels height width"]
    offset: Float[Tensor, "1 *channels height width"] | None
    asked: Mapping[str, Asked]

    def aligned(self, x: Tensor) -> Tensor:
        """Return latents moved to where the model is to be asked."""
        return x if self.offset is None else x + self.offset.to(x)


@dataclass(frozen=True, eq=False)
class ComfySource:
    """What edits start from, are held to, and read; the same for any number of edits.

    Memory: two tensors of the latents' size a step (three after an inversion), and `store`'s.

    Args:
        moments: By (sigma, how many evaluations at this sigma came before).
        picture: The picture's latents in the model's own scale, nudged if they were.
        sigmas: From noise to picture.
        store: Keys and values that were kept; what is not kept is read off the model again with every edit.
        nudge: The factor on the picture's latents.
        warp: Something of it is to be moved.
    """

    moments: Mapping[tuple[float, int], Moment]
    picture: Float[Tensor, "1 *channels height width"]
    sigmas: Float[Tensor, " times"]
    store: KVStore | None = None
    nudge: float = 1.0
    warp: Warp | None = None

    def moved(self, warp: Warp) -> "ComfySource":
        """Return the same source with something in another place."""
        return replace(self, warp=warp)

    def find(self, sigma: float, occurrence: int, *, nearest: bool) -> tuple[tuple[float, int], Moment]:
        """Return the evaluation of the source that belongs to one of an edit.

        Args:
            nearest: Take the nearest time where the source was never asked at this one.

        Raises:
            InterventionError: It was not, and only the same time will do.
        """
        times = sorted({time for time, _ in self.moments}, key=lambda time: abs(time - sigma))
        if abs(times[0] - sigma) > NEAR and not nearest:
            raise InterventionError(
                f"The edit asks the model at sigma {sigma:.4f}, and the source was never there; it went through "
                f"{_listed(sorted({time for time, _ in self.moments}, reverse=True))}. Give both the same steps and "
                "scheduler (connect the source's sigmas), or set times to 'nearest'."
            )
        last = max(visit for time, visit in self.moments if time == times[0])
        place = times[0], min(occurrence, last)
        return place, self.moments[place]

    def state(self, sigma: float, patch: int) -> Tensor:
        """Return where an edit begins that starts at this time."""
        _, moment = self.find(sigma, 0, nearest=False)
        return moment.state if self.warp is None else self.warp.start(moment.state, patch)

    def denoised(self, moment: Moment, patch: int) -> Tensor:
        """Return the source's own answer, carried with what is moved."""
        return moment.denoised if self.warp is None else self.warp.latents(moment.denoised, patch)

    def aligned(self, moment: Moment, x: Tensor, patch: int) -> Tensor:
        """Return latents of an edit moved to where the model is to be asked."""
        if moment.offset is None or self.warp is None:
            return moment.aligned(x)
        return x + self.warp.latents(moment.offset, patch).to(x)

    def check_size(self, size: tuple[int, ...]) -> None:
        """Raise unless an edit is as large as the source."""
        if tuple(size) != tuple(self.picture.shape[1:]):
            raise TokenLayoutError(
                f"The source's latents are {tuple(self.picture.shape[1:])} and the edit's {tuple(size)} (channels, "
                "height, width). Give the sampler the latent that comes out of the source's node."
            )


def _listed(times: list[float]) -> str:
    shown = [f"{time:.4f}" for time in times]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "...", *shown[-3:]])


def row_of(value: Any, row: int, rows: int) -> Any:
    """Return one row of what is given by the row; what is not stays."""
    if isinstance(value, Tensor):
        return value[row : row + 1].clone() if value.ndim and value.shape[0] == rows else value
    if isinstance(value, list):
        return [row_of(entry, row, rows) for entry in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two conditionings hold equal numbers."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list | tuple):
        return isinstance(other, type(one)) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        )
    return one is other or bool(one == other)
