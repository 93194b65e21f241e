"""The lines that make a result again without the app: Python, and the command line."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from stableflow.order import Order

GIVEN, MASK = "given.png", "mask.png"  # what the page calls the files that belong to the lines
SOURCE = ("seed", "steps", "guidance", "height", "width", "solver", "inversion", "nudge")
LOADED = ("dtype", "components", "parts", "lora", "quantise", "max_sequence_length")  # beside the model's name
FLAGS = {"parts": "part"}
NAMES = {"steps": "num_steps", "guidance": "guidance_scale", "nudge": "nudge_scale"}


def lines_of(orders: Sequence[Order]) -> dict[str, str]:
    """Return the lines that make the runs of a request again, by the names that they have in an entry."""
    return {"python": python_lines(orders), "command": command_line(orders)}


def command_line(orders: Sequence[Order]) -> str:
    """Return a `stableflow edit` line for each run."""
    lines = []
    for number, order in enumerate(orders):
        words = ["stableflow", "edit", "-m", order.model]
        for name in LOADED:
            value = getattr(order, name)
            for one in value if isinstance(value, list) else [value]:
                words += [] if one is None else [f"--{FLAGS.get(name, name.replace('_', '-'))}", f"{one}"]
        words += ["--prompt", order.prompt or ""]
        words += ["--image", GIVEN] if order.image is not None else []
        for name in SOURCE:
            value = getattr(order, name)
            words += [] if value is None else [f"--{name}", f"{value}"]
        for text in order.to:
            words += ["--to", text]
        words += ["--task", order.task] if order.task else []
        words += [] if order.method == "stable-flow" or order.task else ["--editor", order.editor]
        for short in ("strength", "negative", "preset"):
            value = getattr(order, short)
            words += [] if value is None else [f"--{short}", f"{value}"]
        words += [] if order.region is None else ["--mask", _portable(order.region).replace(f"mask:{MASK}", MASK)]
        for name, value in order.set.items():
            words += ["--set", f"{name}={json.dumps(_portable(value))}"]
        words += ["--out", f"out/{number}"]
        lines.append(shlex.join(words))
    return "\n".join(lines) + "\n"


def python_lines(orders: Sequence[Order]) -> str:
    """Return a script that makes every run."""
    plain = all(order.method == "stable-flow" for order in orders)
    lines = _loading(orders[0], [] if plain else ["from stableflow.editing import EDITORS"])
    for number, order in enumerate(orders):
        lines += ["", *_one_run(order, number)]
    return "\n".join(lines) + "\n"


def layers_lines(order: Order, layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the lines that draw layers again; the command line has none for them.

    Args:
        order: Of the picture below them.
        layers: Arguments of `Stroke`; those of masks name the files that lie beside the lines.
    """
    imports = ["from stableflow.editing import Brushes", "from stableflow.editing.stack import Stack, Stroke"]
    lines = [*_loading(order, imports), "", f"editor = sf.StableFlow({_arguments(['model'], order.settings())})"]
    lines += [f"source = {_making(order)}", "layers = ["]
    lines += [f"    Stroke({_arguments([], dict(layer))})," for layer in layers]
    given = {} if order.image is None else {"original": GIVEN}
    lines += [
        "]",
        "result = Stack(Brushes(model), source).draw(layers)",
        f"result.save({_arguments([repr('out/0')], given)})",
    ]
    return {"python": "\n".join(lines) + "\n", "command": ""}


def _loading(order: Order, imports: Sequence[str]) -> list[str]:
    """Imports, and the line that loads the model."""
    head = ["import stableflow as sf", *imports]
    loaded = {name: getattr(order, name) for name in LOADED if getattr(order, name) is not None}
    arguments = _arguments([repr(order.model)], loaded)
    if order.dtype is not None:
        head, arguments = ["import torch", "", *head], arguments.replace(repr(order.dtype), f"torch.{order.dtype}")
    return [*head, "", f"model = sf.load({arguments})"]


def _making(order: Order) -> str:
    """The call that makes the source."""
    source = {NAMES.get(name, name): getattr(order, name) for name in SOURCE if getattr(order, name) is not None}
    if order.image is None:
        return f"editor.generate({_arguments([repr(order.prompt)], source)})"
    return f"editor.invert({_arguments([repr(GIVEN), repr(order.prompt)], source)})"


def _one_run(order: Order, number: int) -> list[str]:
    made = "sf.StableFlow" if order.method == "stable-flow" else f"EDITORS[{order.method!r}]"
    settings = _portable(order.settings())
    where: dict[str, Any] = {} if order.task is None else {"task": order.task}
    where |= {} if order.exact is None else {"exact": order.exact}
    where |= {} if order.region is None else {"region": _portable(order.region)}
    if settings.get("strength") == "auto":
        where |= {"strength": settings.pop("strength")}
    if order.task is not None:  # the settings of the call, which the task's give way to
        where, settings = where | settings, {}
    bounded = order.region is not None or order.task is not None or "moves" in order.set
    shown = "" if order.task is None else " if result.region else None"
    original = (
        f", original={GIVEN!r}{shown}" if order.image is not None and bounded and order.exact is not False else ""
    )
    return [
        f"editor = {made}({_arguments(['model'], settings)})",
        f"source = {_making(order)}",
        f"result = editor.edit({_arguments(['source', repr(order.to)], where)})",
        f"result.save({_arguments([repr(f'out/{number}')], {})}{original})",
    ]


def _arguments(given: list[str], named: dict[str, Any]) -> str:
    return ", ".join([*given, *(f"{name}={value!r}" for name, value in named.items())])


def _portable(value: Any) -> Any:
    """A region or settings in which a mask's file has the name that it is given beside the lines."""
    if isinstance(value, str) and value.removeprefix("~").startswith("mask:"):
        return value[: value.index(":") + 1] + MASK
    if isinstance(value, dict):
        return {name: _portable(part) for name, part in value.items()}
    return [_portable(part) for part in value] if isinstance(value, list) else value
