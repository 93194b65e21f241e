"""The two streams of what a block puts out: text and image features, between one block and the next."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.models.base import TokenLayout
from stableflow.models.hooks import Stream

STREAMS: tuple[Stream, ...] = ("text", "image")


def check_stream(stream: str) -> None:
    """Raise unless there is such a stream."""
    if stream not in STREAMS:
        raise InputError(f"stream must be one of {STREAMS}, got {stream!r:.40}.")


def stream_of(output: Any, stream: Stream, layout: TokenLayout) -> Float[Tensor, "rows tokens dim"] | None:
    """Return one stream of a block's output; None where the block, as the last of some models, gives none.

    Blocks return both streams, text first, or one joint sequence in the order that the layout says.
    """
    if isinstance(output, tuple):
        return cast(tuple[Tensor | None, ...], output)[STREAMS.index(stream)]
    return output[:, layout.joint_span(stream)]


def with_stream(output: Any, stream: Stream, layout: TokenLayout, features: Float[Tensor, "rows tokens dim"]) -> Any:
    """Return the output with one stream replaced; the output itself is left as it is."""
    if isinstance(output, tuple):
        place = STREAMS.index(stream)
        return (*output[:place], features, *output[place + 1 :])
    span = layout.joint_span(stream)
    return torch.cat([output[:, : span.start], features, output[:, span.stop :]], dim=1)
