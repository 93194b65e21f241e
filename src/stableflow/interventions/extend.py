"""Let a pass read a source's keys and values beside its own: extended attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stableflow.interventions.address import address_of
from stableflow.interventions.store import KVStore
from stableflow.models.base import Division, Forward, Layer, OutsideHook, Part, TokenLayout


@dataclass(frozen=True, eq=False)
class ExtendKV:
    """softmax(q [k ; K]^T / sqrt(d)) [v ; V] in chosen layers, with K and V of the source's image tokens.

    Keys are turned to the source's own places. Every token is computed as before; nothing is replaced.

    Args:
        layers: Indices in execution order; they must have been recorded.
        store: Filled by `RecordKV` over the same sequence of passes, at the same size.

    Source: shared attention to a first picture is Hertz et al., "Style Aligned Image Generation via Shared Attention"
    (CVPR 2024), arXiv:2312.02133; extended keys and values for a consistent style also Avrahami et al., "Stable Flow"
    (CVPR 2025), arXiv:2411.14430.
    """

    layers: Sequence[int]
    store: KVStore

    def hooks(self, layers: Sequence[Layer]) -> list[OutsideHook]:
        return [OutsideHook(layers[index], _everything, partial(self._supply, index)) for index in self.layers]

    def _supply(self, layer: int, forward: Forward, part: Part, like: Tensor) -> Tensor:
        division = forward.layout.division
        assert division is not None
        return self.store.get_some(address_of(forward, layer, part), division.left_out, of=division.tokens, like=like)


def _everything(layout: TokenLayout, device: torch.device) -> Division:
    """All tokens are computed, and all are read of the source as well."""
    every = torch.arange(layout.image_rows * layout.image_columns, device=device)
    return Division(every, every, of=len(every))
