"""Inject a recorded source's keys and values into its edits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from stableflow.interventions.address import address_of
from stableflow.interventions.blend import Blend
from stableflow.interventions.parts import check_parts
from stableflow.interventions.store import KVStore
from stableflow.models.base import PARTS, Forward, Layer, Part, ProjectionHook


@dataclass(frozen=True)
class InjectKV:
    """Replace the image keys and values of every row in chosen layers by the recorded ones.

    Args:
        layers: Indices in execution order; they must have been recorded.
        store: Filled by `RecordKV` over the same sequence of passes.
        blend: Weight and place, over flow time; the default replaces fully, everywhere, always.
        parts: Keys, values, or both; they must have been recorded.
        every_token: Text tokens too, as they were recorded; for a blend without a place.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, attention injection in vital layers.
    """

    layers: Sequence[int]
    store: KVStore
    blend: Blend = Blend()
    parts: Sequence[Part] = PARTS
    every_token: bool = False

    def __post_init__(self) -> None:
        check_parts(self.parts)

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [self._hook(layers[index], part) for index in self.layers for part in self.parts]

    def _hook(self, layer: Layer, part: Part) -> ProjectionHook:
        inject = partial(self._inject, layer.index, part)
        whole = self.blend.replaces and not self.every_token
        return ProjectionHook(layer, part, inject, value=inject if whole else None, every_token=self.every_token)

    def _inject(self, layer: int, part: Part, forward: Forward, features: Tensor) -> Tensor | None:
        if not self.blend.acts_at(forward.t):
            return None
        source = self.store.get(address_of(forward, layer, part), like=forward.layout.like_whole(features))
        return self.blend.apply(features, forward.layout.computed(source), forward.layout, forward.t)
