"""Reuse the residual of layers that matter little, instead of computing it at every step."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from stableflow.models.base import Branch, CallHook, Forward, Layer


@dataclass(frozen=True)
class ReuseResidual:
    """Leave chosen layers out at chosen times: there, output = input + what the layer last added to its input.

    An approximation of our own, in the manner of diffusers' step caches, but decided beforehand and by layer. It is
    refused beside anything that measures layers or reads inside those that are left out. Attach it for one integration
    at a time; a layer always runs until it has a residual to reuse.

    Args:
        layers: Indices in execution order, such as all that are not vital.
        times: Flow times of the passes that do without them, from `flow.skipping`.
    """

    layers: Sequence[int]
    times: Collection[float]

    def hooks(self, layers: Sequence[Layer]) -> list[CallHook]:
        if not self.times:
            return []
        return [CallHook(layers[index], partial(self._call, {})) for index in self.layers]

    def _call(self, kept: dict[Branch, Any], forward: Forward, identity: Any, run: Callable[[], Any]) -> Any:
        residual = kept.get(forward.branch)
        if residual is not None and forward.t in self.times:
            return _combine(lambda before, added: before + added, identity, residual)
        output = run()
        kept[forward.branch] = _combine(lambda after, before: after - before, output, identity)
        return output


def _combine(function: Callable[[Tensor, Tensor], Tensor], one: Any, other: Any) -> Any:
    """Apply to both streams, where a block has two; a stream that ends in this block is None."""
    if isinstance(one, Tensor):
        return function(one, other)
    return tuple(None if a is None or b is None else function(a, b) for a, b in zip(one, other))
