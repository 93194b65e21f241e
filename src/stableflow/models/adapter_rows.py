"""LoRA adapters switched row by row: in one pass some rows have them and others have not."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stableflow.checks import check_number
from stableflow.errors import InputError, InterventionError


def checked_weights(transformer: nn.Module, weights: Sequence[float]) -> tuple[float, ...]:
    """Return how much of its adapters each row of a pass is to have.

    Raises:
        InputError: One is no number, or the model has no adapter.
        InterventionError: The adapters are part of the weights, or of compiled blocks.
    """
    if not isinstance(weights, list | tuple) or not weights:
        raise InputError(f"Adapter weights must be a list of numbers, one a row, got {weights!r:.60}.")
    adapted = adapted_modules(transformer)
    if not adapted:
        raise InputError("This model has no adapter to switch: load it with lora=, or add one by diffusers or peft.")
    if any(module.merged for module in adapted):
        raise InterventionError("The adapter is merged into the weights, so rows cannot do without it; unmerge it.")
    if any(getattr(block, "_compiled_call_impl", None) is not None for block in transformer.modules()):
        raise InterventionError("Compiled blocks meet no hooks, so adapters cannot be switched by row: do not compile.")
    return tuple(check_number(f"adapter weight {i}", weight, -10, 10) for i, weight in enumerate(weights))


def adapted_modules(transformer: nn.Module) -> list[Any]:
    """Return the modules that peft gave a low-rank update."""
    return [module for module in transformer.modules() if hasattr(module, "lora_B") and hasattr(module, "base_layer")]


@contextmanager
def adapter_rows(transformer: nn.Module, weights: Float[Tensor, " rows"]) -> Generator[None]:
    """Open a block in which row i of a pass adds weights[i] times what its adapters add.

    The update of a module is B A x, so that its rows are scaled where they leave B; 0 is the model without.

    Raises:
        InterventionError: In the pass, where a module sees its rows packed.
    """

    def scale(module: nn.Module, given: Any, update: Tensor) -> Tensor:
        if len(update) != len(weights):
            raise InterventionError(
                f"Adapters are switched for {len(weights)} rows, and a module that has one saw {len(update)}: this "
                "family packs its rows, so that they cannot be told apart there."
            )
        return update * weights.to(update).reshape(-1, *[1] * (update.ndim - 1))

    ups = [up for module in adapted_modules(transformer) for up in module.lora_B.values()]
    hooks = [up.register_forward_hook(scale) for up in ups]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def row_weights(weights: Sequence[float], rows: int, branches: int, device: torch.device) -> Float[Tensor, " all_rows"]:
    """Return the weights of a pass whose branches are stacked: the same in each.

    Raises:
        InterventionError: The pass has another number of rows.
    """
    if len(weights) != rows:
        raise InterventionError(f"Adapters are switched for {len(weights)} row(s), and this pass has {rows}.")
    return torch.tensor(weights, dtype=torch.float32, device=device).repeat(branches)
