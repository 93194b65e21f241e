"""Energies over a layer's features: their gradient leads a flow, at a length that follows another push."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stableflow.models.base import Forward, Layer, ProjectionHook


def rescaled(gradient: Tensor, push: Tensor, low: float, high: float) -> Tensor:
    """Return the gradient at a length between low and high times that of the push, row by row."""
    long, far = (x.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1) for x in (gradient, push))
    return (long / far).clamp(low, high) * far / long * gradient


@dataclass(frozen=True)
class Keys:
    """Image keys of layers, with gradients."""

    layers: Sequence[int]
    seen: list[Tensor]

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [ProjectionHook(layers[index], "key", self._keep) for index in self.layers]

    def _keep(self, forward: Forward, keys: Tensor) -> None:
        self.seen.append(keys.float())

    def taken(self) -> list[Tensor]:
        """Return what was seen since it was last asked."""
        return [self.seen.pop(0) for _ in list(self.seen)]
