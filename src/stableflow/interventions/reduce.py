"""Averages captured attention as it comes in, so that little is ever kept."""

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InterventionError
from stableflow.models.base import Forward, TokenLayout


class AttentionMean:
    """Sums captured attention over passes and heads, unless asked to keep them apart.

    Memory: layers x rows x points x joint tokens x 4 bytes in main memory (1 MB a row and point for all 57 layers of
    FLUX.1 at 1024x1024); times heads with `per_head`, times steps with `per_step`.

    Args:
        per_step: Keep flow times apart.
        per_head: Keep heads apart.
    """

    def __init__(self, *, per_step: bool = False, per_head: bool = False):
        self._per_step = per_step
        self._per_head = per_head
        self._sums: dict[tuple[int, float | None], Tensor] = {}
        self._counts: dict[tuple[int, float | None], int] = {}
        self.layout: TokenLayout | None = None

    def __call__(self, forward: Forward, layer: int, rows: Float[Tensor, "batch points heads tokens"]) -> None:
        """Take the rows of one layer in one pass."""
        if not self._per_head:
            rows = rows.mean(dim=2, keepdim=True)  # over heads
        key = layer, (forward.t if self._per_step else None)
        rows = rows.cpu()
        self._sums[key] = self._sums[key] + rows if key in self._sums else rows
        self._counts[key] = self._counts.get(key, 0) + 1
        self.layout = forward.layout

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for layer, _ in self._sums}))

    @property
    def times(self) -> tuple[float, ...]:
        """The flow times kept apart, from noise to image; empty where they were averaged."""
        return tuple(sorted({t for _, t in self._sums if t is not None}, reverse=True))

    @property
    def num_bytes(self) -> int:
        return sum(total.nbytes for total in self._sums.values())

    def mean(self) -> Float[Tensor, "layers steps batch points heads tokens"]:
        """Return the averages; steps and heads are 1 where they were not kept apart.

        Raises:
            InterventionError: Nothing was captured.
        """
        if not self._sums:
            raise InterventionError(
                "No attention was captured: no pass ran, or none in the time window. Widen t_window or take more steps."
            )
        times = self.times or (None,)
        return torch.stack(
            [torch.stack([self._sums[layer, t] / self._counts[layer, t] for t in times]) for layer in self.layers]
        )
