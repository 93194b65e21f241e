"""Injection inside compiled blocks: a gate in each key and value projection, put there before compilation.

A hook that comes after compilation is ignored without a word, and one that looks up what to inject would be compiled
again at every step. A gate is compiled in once, open and once closed; what it lets in waits in one buffer.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from stableflow.models.hooks import PARTS, Forward, Layer, Projection, ProjectionHook


class Gate:
    """Where a projection's image rows are replaced, when it is open.

    Args:
        columns: Of the projection's output.
        width: Of these columns.
    """

    def __init__(self, columns: slice, width: int):
        self.open = False
        self.columns, self.width = columns, width
        self.start, self.stop = 0, 0
        self.value = torch.empty(0)

    def place(self, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, self.start : self.stop, self.columns] = self.value
        return output

    def let_in(self, rows: slice, value: Tensor) -> None:
        """Open for one pass; the buffer stays the same tensor as long as shape, type and device do."""
        self.start, self.stop = rows.start, rows.stop
        old = self.value
        if (old.shape, old.dtype, old.device) != (value.shape, value.dtype, value.device):
            self.value = torch.empty_like(value)
        self.value.copy_(value)
        self.open = True


def add_gates(layers: Sequence[Layer]) -> None:
    """Give every key and value projection its gate; results stay the same while it is closed."""
    for layer in layers:
        for part in PARTS:
            for projection in layer.projections(part):
                module: Any = projection.module
                if "forward" in vars(module) and not hasattr(module, "gates"):
                    continue  # offloading wraps it; such blocks run uncompiled while hooked
                if not hasattr(module, "gates"):
                    module.gates = []
                    module.forward = MethodType(_through_gates, module)
                width = len(range(module.out_features)[projection.columns])
                module.gates.append(Gate(projection.columns, width))


def _through_gates(self: Any, *args: Any, **kwargs: Any) -> Tensor:
    output = type(self).forward(self, *args, **kwargs)
    for gate in self.gates:
        if gate.open:
            output = gate.place(output)
    return output


def gate_of(projection: Projection) -> Gate | None:
    """Return the projection's gate, if it has one that values can be made for beforehand."""
    weight = getattr(projection.module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return None
    gates: list[Gate] = getattr(projection.module, "gates", [])
    return next((gate for gate in gates if gate.columns == projection.columns), None)


class GatedHook:
    """A hook that acts through gates: what it injects is known before the pass."""

    def __init__(self, hook: ProjectionHook, gates: Sequence[tuple[Gate, nn.Module]]):
        self._hook, self._gates = hook, gates

    @staticmethod
    def make(hook: ProjectionHook) -> "GatedHook | None":
        """Return the hook as one of gates, or None where it needs to see the rows, or there are no gates."""
        projections = hook.layer.projections(hook.part)
        gates = [(gate, projection.module) for projection in projections if (gate := gate_of(projection)) is not None]
        if hook.value is None or len(gates) < len(projections):
            return None
        return GatedHook(hook, gates)

    def prepare(self, forwards: Sequence[Forward]) -> None:
        """Open the gates for the coming pass, where the hook acts in it."""
        assert self._hook.value is not None
        rows = forwards[0].layout.image_span(self._hook.layer.kind)
        for attention, (gate, module) in enumerate(self._gates):
            weight: Any = module.weight
            like = torch.empty(1, rows.stop - rows.start, gate.width, dtype=weight.dtype, device=weight.device)
            values = [self._hook.value(replace(forward, attention=attention), like) for forward in forwards]
            known = [
                value.expand(forward.batch, -1, -1) for forward, value in zip(forwards, values) if value is not None
            ]
            if len(known) == len(forwards):
                gate.let_in(rows, torch.cat(known))

    def close(self) -> None:
        for gate, _ in self._gates:
            gate.open = False
