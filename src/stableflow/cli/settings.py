"""From options, YAML run files and recipes to one order."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stableflow.editing import EDITORS
from stableflow.editing.where import REGIONS
from stableflow.errors import InputError, LoadError
from stableflow.order import OF_A_REPEATED_RUN, Order, from_recipe
from stableflow.reading import faults, read_yaml

__all__ = ["from_recipe", "make_settings", "order_from", "parse_set", "read_run_file", "where"]


CHOSEN_BY_TASK = ("editor", "set", "region", "exact", "keeping")
"""What a picture's recipe says and a task that is asked for instead says anew."""


def read_run_file(path: Path) -> dict[str, Any]:
    """Return the settings that a YAML run file gives.

    Raises:
        InputError: The file is missing, no YAML, too large or deep, or no mapping.
    """
    try:
        content = read_yaml(path, what="the run file")
    except LoadError as error:
        raise InputError(str(error)) from error
    if not isinstance(content, dict):
        raise InputError(f"The run file {path} must hold 'name: value' lines, such as 'prompt: a dog on the grass'.")
    return content


def order_from(*layers: dict[str, Any]) -> Order:
    """Merge settings, later ones winning, and check them; an empty list is a value, None is none.

    Raises:
        InputError: Names every setting that is unknown or out of place.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        given = {name: value for name, value in layer.items() if value is not None}
        if "set" in given and isinstance(merged.get("set"), dict) and isinstance(given["set"], dict):
            given["set"] = merged["set"] | given["set"]
        if "editor" in given and given["editor"] != merged.get("editor", given["editor"]):
            merged.pop("set", None)  # settings of another method
        if "task" in given and given["task"] != merged.get("task"):
            merged = {name: value for name, value in merged.items() if name not in CHOSEN_BY_TASK}
        merged |= given
    try:
        order = Order.model_validate(merged)
    except ValidationError as error:
        raise InputError(f"{faults(error)}.{_known(error)}") from error
    EDITORS[order.editor]  # an unknown name lists the known ones
    _check_complete(order)
    return order


make_settings = order_from


def parse_set(pairs: list[str] | None) -> dict[str, Any] | None:
    """Return the settings in key=value options: values are JSON where they are, and text otherwise.

    Raises:
        InputError: One is no key=value.
    """
    if pairs is None:
        return None
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, such as --set num_steps=8, got {pair!r}.")
        try:
            settings[key.strip()] = json.loads(text)
        except ValueError:
            settings[key.strip()] = text
    return settings


def where(mask: str | None) -> str | None:
    """Return a --mask as the description of a region: what it says itself, or a mask's file."""
    if mask is None or ":" in mask or mask.removeprefix("~") in REGIONS:
        return mask
    return f"~mask:{mask[1:]}" if mask.startswith("~") and not Path(mask).exists() else f"mask:{mask}"


def _known(error: ValidationError) -> str:
    """The known settings, where one is unknown."""
    if all(fault["type"] != "extra_forbidden" for fault in error.errors(include_url=False)):
        return ""
    names = [name for name in Order.model_fields if name not in OF_A_REPEATED_RUN]
    return f" Known settings: {', '.join(names)}."


def _check_complete(order: Order) -> None:
    if order.prompt is None:
        what = "what the picture shows" if order.image else "the picture to draw"
        raise InputError(f"--prompt is missing: describe {what}, such as --prompt 'a dog standing on the grass'.")
    if not order.to:
        raise InputError("--to is missing: give at least one edited prompt, such as --to 'a dog sitting on the grass'.")
    if order.image is not None and order.seed is not None:
        raise InputError("--seed draws a picture and --image gives one; leave one of them out.")
    if order.reference_digests and not order.reference:
        raise InputError("This run read reference pictures, which a recipe does not hold: give them with --reference.")
    if order.image_digest is not None and order.image is None:
        raise InputError("This run edited a picture file, which a recipe does not hold: give it again with --image.")
