"""Record the keys and values of the source's image tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from stableflow.interventions.address import address_of
from stableflow.interventions.parts import check_parts
from stableflow.interventions.store import KVStore
from stableflow.models.base import PARTS, Forward, Layer, Part, ProjectionHook


@dataclass(frozen=True)
class RecordKV:
    """Put row 0's image keys and values of chosen layers into a store, as they leave their projections.

    Under classifier-free guidance both branches are recorded, also of a source that is not guided itself: its edits may
    be. The unconditional pass that this costs has no effect on the source.

    Args:
        layers: Indices in execution order.
        store: Filled with one entry a pass, layer and part. The pass itself is not changed.
        parts: Keys, values, or both.
        every_token: Text tokens too, in layers that project both streams together.
    """

    layers: Sequence[int]
    store: KVStore
    parts: Sequence[Part] = PARTS
    every_token: bool = False

    def __post_init__(self) -> None:
        check_parts(self.parts)

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [self._hook(layers[index], part) for index in self.layers for part in self.parts]

    def _hook(self, layer: Layer, part: Part) -> ProjectionHook:
        record = partial(self._record, layer.index, part)
        return ProjectionHook(layer, part, record, every_branch=True, every_token=self.every_token)

    def _record(self, layer: int, part: Part, forward: Forward, features: Tensor) -> None:
        self.store.put(address_of(forward, layer, part), features[:1])
