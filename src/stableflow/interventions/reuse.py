"""Reuse the residual of layers that matter little, instead of computing it at every step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from stableflow.errors import InputError
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.models.base import Branch, CallHook, Forward, Layer


@dataclass(frozen=True)
class ReuseResidual:
    """Run chosen layers in every n-th pass only: in between, output = input + what the layer last added to its input.

    An approximation of our own, in the manner of diffusers' step caches but decided by layer. It is refused beside
    anything that measures layers or reads inside those that are left out. Attach it for one integration at a time.

    Args:
        layers: Indices in execution order, such as all that are not vital.
        every: 2 leaves out alternate passes, 1 none.
        t_window: Closed interval of flow times (low, high) in which layers may be left out; 1 is noise.
    """

    layers: Sequence[int]
    every: int = 2
    t_window: tuple[float, float] = WHOLE_FLOW

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"every must be 1 (never reuse) or more, got {self.every}.")

    def hooks(self, layers: Sequence[Layer]) -> list[CallHook]:
        if self.every == 1:
            return []
        return [CallHook(layers[index], partial(self._call, {})) for index in self.layers]

    def _call(
        self, kept: dict[Branch, tuple[int, Any]], forward: Forward, identity: Any, run: Callable[[], Any]
    ) -> Any:
        age, residual = kept.get(forward.branch, (self.every, None))
        low, high = self.t_window
        if age < self.every and low <= forward.t <= high:
            kept[forward.branch] = age + 1, residual
            return _combine(lambda before, added: before + added, identity, residual)
        output = run()
        kept[forward.branch] = 1, _combine(lambda after, before: after - before, output, identity)
        return output


def _combine(function: Callable[[Tensor, Tensor], Tensor], one: Any, other: Any) -> Any:
    """Apply to both streams, where a block has two; a stream that ends in this block is None."""
    if isinstance(one, Tensor):
        return function(one, other)
    return tuple(None if a is None or b is None else function(a, b) for a, b in zip(one, other))
