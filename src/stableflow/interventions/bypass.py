"""Bypass layers: what vitality is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.models.base import BlockHook, Forward, Layer


@dataclass(frozen=True)
class Bypass:
    """Make chosen layers hand on both of their streams unchanged: only the residual path remains.

    Args:
        layers: Indices in execution order.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, measuring the effect of a layer.
    """

    layers: Sequence[int]

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        return [BlockHook(layers[index], _identity) for index in self.layers]


def _identity(forward: Forward, identity: Any, output: Any) -> Any:
    return identity
