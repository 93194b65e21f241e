"""Bypass layers: what vitality is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.models.base import BlockHook, Forward, Layer


@dataclass(frozen=True)
class Bypass:
    """Make chosen layers hand on both of their streams unchanged: only the residual path remains.

    Args:
        layers: Indices in execution order.
        t_window: Closed interval of flow times (low, high) in which they are bypassed; 1 is noise.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, measuring the effect of a layer.
    """

    layers: Sequence[int]
    t_window: tuple[float, float] = WHOLE_FLOW

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        return [BlockHook(layers[index], self._bypass) for index in self.layers]

    def _bypass(self, forward: Forward, identity: Any, output: Any) -> Any:
        low, high = self.t_window
        return identity if low <= forward.t <= high else None
