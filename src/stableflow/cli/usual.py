"""What an order leaves open, filled with what the makers of its model recommend."""

from typing import Any

from stableflow.editing import EDITORS
from stableflow.models.few_steps import usual
from stableflow.order import Order

CAREFUL = {"name": "fixed_point", "iterations": 3}
"""How pictures are inverted in few steps: with one iteration the source would not be found (docs/models.md)."""

SCALES = ("guidance_scale", "target_guidance_scale")
"""What editors call the guidance of their edits."""


def with_usual(order: Order) -> tuple[Order, str]:
    """Return the order with steps and guidance of its checkpoint where it says none, and what was filled in, in words.

    Pictures are inverted in as many steps as the speed preset says, except by checkpoints for few steps, whose own
    count is taken and inverted more carefully; their edits are then guided as they were trained.
    """
    found = usual(order.model, order.lora or ())
    if found is None:
        return order, ""
    filled: dict[str, Any] = {}
    drawn, sped = order.image is None, order.preset is not None or "preset" in order.set
    if order.steps is None and (drawn or (found.few and not sped)):
        filled["steps"] = found.steps
    if order.guidance is None and drawn:
        filled["guidance"] = found.guidance
    if found.few and not drawn and order.solver is None and not sped:
        filled["solver"] = CAREFUL
    guided = order.edit_guidance is not None or order.task is not None or any(name in order.set for name in SCALES)
    if found.few and not guided and any(name in EDITORS[order.method].setting_names() for name in SCALES):
        filled["edit_guidance"] = found.guidance
    if not filled:
        return order, ""
    told = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in filled.items())
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in filled)
    return order.model_copy(update=filled), f"{found.source}: {told}, as its makers recommend; say otherwise by {flags}"


def _short(value: Any) -> str:
    return f"{value['name']} x{value['iterations']}" if isinstance(value, dict) else f"{value:g}"
