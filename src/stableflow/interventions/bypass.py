"""Bypass layers: what vitality is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.flow.schedule import ALWAYS, Schedule, as_schedule
from stableflow.models.base import BlockHook, Forward, Layer


@dataclass(frozen=True)
class Bypass:
    """Make chosen layers hand on both of their streams unchanged: only the residual path remains.

    Args:
        layers: Indices in execution order.
        when: They are bypassed at the flow times where this is not 0; a pair (low, high) is a closed window.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, measuring the effect of a layer.
    """

    layers: Sequence[int]
    when: Schedule | tuple[float, float] = ALWAYS

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        return [BlockHook(layers[index], self._bypass) for index in self.layers]

    def _bypass(self, forward: Forward, identity: Any, output: Any) -> Any:
        return identity if as_schedule(self.when)(forward.t) else None
