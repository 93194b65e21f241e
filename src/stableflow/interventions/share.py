"""Share the keys and values of a source that runs in the same batch as its edits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.interventions.blend import Blend
from stableflow.interventions.parts import check_parts
from stableflow.models.base import PARTS, Forward, Layer, Part, ProjectionHook


@dataclass(frozen=True)
class ShareKV:
    """Replace the image keys and values of rows 1.. in chosen layers by those of row 0.

    Nothing is kept, so nothing must fit in memory; the source's row is paid for in every run. Equal to recording row
    0 and injecting it, up to the rounding of another batch size.

    Args:
        layers: Indices in execution order.
        blend: Weight and place, over flow time; the default replaces fully, everywhere, always.
        parts: Keys, values, or both.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, attention injection in vital layers.
    """

    layers: Sequence[int]
    blend: Blend = Blend()
    parts: Sequence[Part] = PARTS

    def __post_init__(self) -> None:
        check_parts(self.parts)

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [ProjectionHook(layers[index], part, self._share) for index in self.layers for part in self.parts]

    def _share(self, forward: Forward, features: Tensor) -> Tensor | None:
        if forward.batch < 2 or not self.blend.acts_at(forward.t):
            return None
        source, edits = features[:1], features[1:]
        return torch.cat([source, self.blend.apply(edits, source, forward.layout, forward.t)])
