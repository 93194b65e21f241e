"""Give features the statistics of a recorded source's: its look, without what is where."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from stableflow.checks import check_number
from stableflow.interventions.address import address_of
from stableflow.interventions.moments import matched
from stableflow.interventions.parts import check_parts
from stableflow.interventions.store import KVStore
from stableflow.models.base import Forward, Layer, Part, ProjectionHook


@dataclass(frozen=True)
class MatchStatistics:
    """x <- x + weight (mean_s + std_s (x - mean_x) / std_x - x), channel by channel over the image tokens of each row.

    Args:
        layers: Indices in execution order; they must have been recorded.
        store: Of the source s, filled by `RecordKV` over the same sequence of passes.
        parts: Keys, values, or both.
        weight: 1 matches, 0 changes nothing.

    Source: Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization" (ICCV
    2017), arXiv:1703.06868, eq. 8; on keys Hertz et al., "Style Aligned" (CVPR 2024), arXiv:2312.02133.
    """

    layers: Sequence[int]
    store: KVStore
    parts: Sequence[Part] = ("value",)
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_parts(self.parts)
        check_number("weight", self.weight, 0, 1)

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [
            ProjectionHook(layers[index], part, partial(self._match, index, part))
            for index in self.layers
            for part in self.parts
        ]

    def _match(self, layer: int, part: Part, forward: Forward, features: Tensor) -> Tensor:
        source = self.store.get(address_of(forward, layer, part), like=features)
        return features.lerp(matched(features, source), self.weight)
