"""Capture what chosen image positions attend to, never the whole attention map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.flow.schedule import ALWAYS, Schedule, as_schedule
from stableflow.models.base import AttentionHook, Forward, Layer, TokenLayout

Receiver = Callable[[Forward, int, Float[Tensor, "batch points heads tokens"]], None]
"""Takes the probabilities of one layer in one pass: (forward, layer, probabilities)."""


@dataclass(frozen=True)
class CaptureAttention:
    """Hand the attention rows of a few image positions in chosen layers to `keep`; the pass itself is not changed.

    Attention is softmax(q k^T / sqrt(head_dim) + bias) over all joint keys, text and image, for the queries of the
    chosen positions only, in float32, from the queries and keys that the layer really uses: injected keys are seen
    injected. The bias is the family's mask of padded text, if it has one.

    Memory: batch x points x heads x joint tokens x 4 bytes at a time (0.4 MB a row and point for FLUX.1 at 1024x1024,
    where the whole map takes 972 MiB in bfloat16), and a float32 copy of the layer's joint keys (57 MB a row there).

    Args:
        layers: Indices in execution order.
        points: Pixels (x, y) of the picture, from its top left corner.
        size: Its (height, width) in pixels.
        keep: Called once a layer and pass.
        when: Capture at the flow times where this is not 0; a pair (low, high) is a closed window.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, the attention of a point in vital and
    non-vital layers (figure 6).
    """

    layers: Sequence[int]
    points: Sequence[tuple[int, int]]
    size: tuple[int, int]
    keep: Receiver
    when: Schedule | tuple[float, float] = ALWAYS

    def __post_init__(self) -> None:
        height, width = self.size
        outside = [(x, y) for x, y in self.points if not (0 <= x < width and 0 <= y < height)]
        if outside or not self.points:
            raise InputError(
                f"points must be pixels (x, y) with 0 <= x < {width} and 0 <= y < {height}, at least one; got "
                f"{outside or 'none'}."
            )
        as_schedule(self.when)  # refuses a window that is none

    def hooks(self, layers: Sequence[Layer]) -> list[AttentionHook]:
        return [AttentionHook(layers[index], partial(self._capture, index)) for index in self.layers]

    def _capture(self, layer: int, forward: Forward, queries: Tensor, keys: Tensor, bias: Tensor | None) -> None:
        if forward.branch != "conditional" or not as_schedule(self.when)(forward.t):
            return
        positions = self._positions(forward.layout)
        if bias is not None:
            bias = bias.expand(-1, -1, queries.shape[1], -1)[:, :, positions]
        self.keep(forward, layer, attention_rows(queries[:, positions], keys, bias))

    def _positions(self, layout: TokenLayout) -> list[int]:
        """Where the points' tokens are in the joint sequence."""
        height, width = self.size
        start = layout.joint_span("image").start
        return [
            start + y * layout.image_rows // height * layout.image_columns + x * layout.image_columns // width
            for x, y in self.points
        ]


def attention_rows(
    queries: Float[Tensor, "batch points heads head_dim"],
    keys: Float[Tensor, "batch tokens heads head_dim"],
    bias: Float[Tensor, "batch 1 points tokens"] | None = None,
) -> Float[Tensor, "batch points heads tokens"]:
    """Return softmax(q k^T / sqrt(head_dim) + bias), in float32; every row sums to 1."""
    logits = einsum(
        queries.float(), keys.float(), "batch points heads dim, batch tokens heads dim -> batch points heads tokens"
    )
    logits = logits / queries.shape[-1] ** 0.5
    if bias is not None:
        logits = logits + rearrange(bias.float(), "batch 1 points tokens -> batch points 1 tokens")
    return torch.softmax(logits, dim=-1)
