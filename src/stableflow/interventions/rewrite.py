"""Features read, put in another run's place, or taken away: at any layer, time, stream and token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_choice
from stableflow.errors import InputError, InterventionError
from stableflow.flow.schedule import ALWAYS, Schedule, as_schedule
from stableflow.interventions.streams import check_stream, stream_of, with_stream
from stableflow.models.base import BlockHook, Forward, Layer
from stableflow.models.hooks import Stream

Tokens = Sequence[int] | None
When = Schedule | tuple[float, float]
NEAR = 1e-4  # two runs' times that differ by less are the same


@dataclass(frozen=True)
class Rewrite:
    """Hand one stream of what chosen layers put out to a function, and go on with what it returns.

    The most general of the interventions on features; the others here are written with it.

    Args:
        layers: Indices in execution order.
        function: From (forward, layer, features of shape (rows, tokens, dim)) to features of the same shape, or None
            to leave them. The rows are those of all branches of the pass.
        stream: "image" or "text".
        when: At the flow times where this is not 0; a pair (low, high) is a closed window.

    Example:
        >>> with attach(model, Rewrite([3], lambda forward, layer, features: 0.5 * features)):
        ...     result = editor.edit(source, "a red dog sitting on the grass at noon")
    """

    layers: Sequence[int]
    function: Callable[[Forward, int, Float[Tensor, "rows tokens dim"]], Tensor | None]
    stream: Stream = "image"
    when: When = ALWAYS

    def __post_init__(self) -> None:
        check_stream(self.stream)
        as_schedule(self.when)  # refuses a window that is none

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        wrong = [index for index in self.layers if not 0 <= index < len(layers)]
        if wrong:
            raise InputError(f"layers {wrong} are out of range: the model has layers 0..{len(layers) - 1}.")
        return [BlockHook(layers[index], partial(self._rewrite, index)) for index in self.layers]

    def _rewrite(self, layer: int, forward: Forward, identity: Any, output: Any) -> Any:
        if not as_schedule(self.when)(forward.t):
            return None
        features = stream_of(output, self.stream, forward.layout)
        new = None if features is None else self.function(forward, layer, features)
        return None if new is None else with_stream(output, self.stream, forward.layout, new)


@dataclass(frozen=True)
class Capture:
    """Keep one stream of what chosen layers put out; the pass itself is not changed.

    Memory: rows x tokens x dim x bytes an element, for each layer and pass (25 MB for FLUX.1's image stream at
    1024x1024 in bfloat16).

    Args:
        layers: Indices in execution order.
        stream: "image" or "text".
        when: At the flow times where this is not 0; a pair (low, high) is a closed window.
        device: Where they are kept; where they were made when None.
        features: Filled with one entry a layer and pass; ask it by `at`.
    """

    layers: Sequence[int]
    stream: Stream = "image"
    when: When = ALWAYS
    device: torch.device | str | None = None
    features: dict[tuple[int, float], Tensor] = field(default_factory=dict[tuple[int, float], Tensor], repr=False)

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        return Rewrite(self.layers, self._keep, self.stream, self.when).hooks(layers)

    def _keep(self, forward: Forward, layer: int, features: Tensor) -> None:
        self.features[layer, forward.t] = features.detach().to(self.device or features.device, copy=True)

    @property
    def times(self) -> tuple[float, ...]:
        """The flow times that were captured, from noise to image."""
        return tuple(sorted({t for _, t in self.features}, reverse=True))

    def at(self, layer: int, t: float) -> Float[Tensor, "rows tokens dim"]:
        """Return what a layer put out at a flow time; of several passes there, in the last.

        Raises:
            InterventionError: Nothing was captured there; says what was.
        """
        near = [known for known in self.times if abs(known - t) < NEAR and (layer, known) in self.features]
        if not near:
            raise InterventionError(
                f"Nothing was captured of layer {layer} at t={t:.4f}. Captured: layers "
                f"{sorted({layer for layer, _ in self.features})} at t = {[round(t, 4) for t in self.times]}."
            )
        return self.features[layer, min(near, key=lambda known: abs(known - t))]


@dataclass(frozen=True)
class Patch:
    """Put what another run put out in the place of this one's, in all layers that were captured: activation patching.

    Args:
        captured: Filled by `Capture`, in passes at the same flow times and size; one row, or as many as here.
        tokens: Positions within the stream; all when None.
        layers: Some of those captured; all of them when None.
        weight: 1 replaces, 0 leaves alone.
        when: At the flow times where this is not 0; a pair (low, high) is a closed window.
    """

    captured: Capture
    tokens: Tokens = None
    layers: Sequence[int] | None = None
    weight: float = 1.0
    when: When = ALWAYS

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        chosen = self.captured.layers if self.layers is None else self.layers
        return Rewrite(chosen, self._patch, self.captured.stream, self.when).hooks(layers)

    def _patch(self, forward: Forward, layer: int, features: Tensor) -> Tensor:
        other = self.captured.at(layer, forward.t).to(features)
        if other.shape[1:] != features.shape[1:] or len(other) not in (1, len(features)):
            raise InterventionError(
                f"Captured features are {tuple(other.shape)} (rows, tokens, dim), this pass has "
                f"{tuple(features.shape)}. Capture and patch at one size, with one row or as many."
            )
        return blended(features, other.expand_as(features), self.tokens, self.weight)


@dataclass(frozen=True)
class Ablate:
    """Take the features of some tokens away after chosen layers: what depends on them there changes, or does not.

    Args:
        layers: Indices in execution order.
        tokens: Positions within the stream; all when None.
        stream: "text" or "image".
        by: "mean" puts the mean of the stream's tokens in their place, which later layers know how to read; "zero"
            nothing at all.
        when: At the flow times where this is not 0; a pair (low, high) is a closed window.
    """

    layers: Sequence[int]
    tokens: Tokens = None
    stream: Stream = "text"
    by: str = "mean"
    when: When = ALWAYS

    def __post_init__(self) -> None:
        check_choice("way to ablate (by)", self.by, ["mean", "zero"])

    def hooks(self, layers: Sequence[Layer]) -> list[BlockHook]:
        return Rewrite(self.layers, self._ablate, self.stream, self.when).hooks(layers)

    def _ablate(self, forward: Forward, layer: int, features: Tensor) -> Tensor:
        mean = features.mean(dim=1, keepdim=True) if self.by == "mean" else torch.zeros_like(features[:, :1])
        return blended(features, mean.expand_as(features), self.tokens, 1.0)


def blended(
    features: Float[Tensor, "rows tokens dim"], other: Float[Tensor, "rows tokens dim"], tokens: Tokens, weight: float
) -> Float[Tensor, "rows tokens dim"]:
    """Return features + weight (other - features) at some tokens, the features themselves elsewhere."""
    moved = other if weight == 1.0 else torch.lerp(features, other, weight)
    if tokens is None:
        return moved
    wrong = [token for token in tokens if not 0 <= token < features.shape[1]]
    if wrong:
        raise InputError(f"tokens {wrong} are out of range: this stream has {features.shape[1]} tokens.")
    chosen = torch.zeros(features.shape[1], 1, dtype=torch.bool, device=features.device)
    chosen[list(tokens)] = True
    return torch.where(chosen, moved, features)
