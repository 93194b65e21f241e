"""Calls of a transformer that its pipeline makes by itself, followed as passes: what is attached acts on them too."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stableflow.errors import InterventionError
from stableflow.models.attached import AttachmentStack
from stableflow.models.hooks import TokenLayout
from stableflow.models.times import TIMESTEPS

TOLERANCE = 1e-5  # of flow time, after both were rounded in the same way


@dataclass(frozen=True)
class Call:
    """What one call of a transformer is a pass of.

    Args:
        t: Flow time, rounded as the pipeline rounds.
        rows, columns: The grid of image tokens; further tokens, of reference pictures, are not counted.
        batch: Rows.
        dtype: In which 1000 t was rounded.
    """

    t: float
    rows: int
    columns: int
    batch: int
    dtype: torch.dtype


Reading = Callable[[Mapping[str, Any]], Call]
"""From the keyword arguments of a pipeline's call of its transformer to what it is a pass of."""


def positioned_call(given: Mapping[str, Any]) -> Call:
    """Read a call of FLUX.1's or FLUX.2's pipelines: `timestep` is t, `img_ids` are (kind, row, column, ...)."""
    ids = given["img_ids"]
    ids = ids[0] if ids.ndim == 3 else ids
    own = ids[ids[:, 0] == 0]  # reference pictures have another first number
    rows, columns = (int(own[:, axis].max()) + 1 for axis in (1, 2))
    return Call(float(given["timestep"].flatten()[0]), rows, columns, *_rows_and_type(given["hidden_states"]))


def _rows_and_type(latents: Tensor) -> tuple[int, torch.dtype]:
    return len(latents), latents.dtype


@contextmanager
def following(
    transformer: Any,
    attachments: AttachmentStack,
    read: Reading,
    layout: Callable[[Call, Mapping[str, Any]], TokenLayout],
    times: Sequence[float],
) -> Iterator[None]:
    """Open a block in which calls that are made outside `velocity` count as passes.

    Args:
        read: Of the family.
        layout: From a call and its keyword arguments to where its tokens are.
        times: Where not empty, the only flow times that a pass may have; a rounded one is taken for the nearest.
    """
    replaced, own = transformer.forward, "forward" in vars(transformer)  # accelerate may have put one there before us

    def forward(*args: Any, **kwargs: Any) -> Any:
        if attachments.in_pass:
            return replaced(*args, **kwargs)
        call = read(kwargs)
        with attachments.forward(meant(call, times), layout(call, kwargs), call.batch):
            return replaced(*args, **kwargs)

    transformer.forward = forward
    try:
        yield
    finally:
        if own:
            transformer.forward = replaced
        else:
            del transformer.forward


def meant(call: Call, times: Sequence[float]) -> float:
    """Return the flow time that a call means, rounded as it is: the one of these that rounds to the same.

    Raises:
        InterventionError: None does, or several do.
    """
    if not times:
        return call.t
    exact = torch.tensor(times, dtype=torch.float32)
    rounded = ((exact * TIMESTEPS).to(call.dtype) / TIMESTEPS).float()
    found = [time for time, own in zip(times, rounded.tolist()) if abs(own - call.t) < TOLERANCE]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{time:.4f}" for time in sorted(times, reverse=True)[:6])
    raise InterventionError(
        f"The pipeline ran a pass at t = {call.t:.4f}, and {len(found)} of the source's times are that: {shown}, ... "
        "Run as many steps, with the same scheduler and at the same size as the source."
        + (f" In {call.dtype} so many steps cannot be told apart; use float32 or fewer." if found else "")
    )
