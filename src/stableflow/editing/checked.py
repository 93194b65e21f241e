"""What every editor's settings and calls are held to, at the border."""

import dataclasses
from typing import Any

from stableflow.checks import (
    LONGEST_SIDE,
    check_callable,
    check_count,
    check_fields,
    check_guidance,
    check_number,
    check_seed,
)
from stableflow.editing.memory import check_fits
from stableflow.errors import InputError
from stableflow.models.base import FlowModel
from stableflow.reading import short


def check_editor(editor: Any) -> None:
    """Hold an editor to its fields' annotations, and to the ranges of what has one name in all editors.

    Raises:
        InputError, UnknownNameError: Names the setting.
    """
    if not isinstance(editor.model, FlowModel):
        raise InputError(f"model must come from load or wrap, got {short(editor.model)}.")
    check_fields(editor)
    if editor.strength is not None:
        check_number("strength", editor.strength, 0, 1)
    for field in dataclasses.fields(editor):
        value = getattr(editor, field.name, None)
        if field.name.endswith("guidance_scale"):
            check_guidance(field.name, value)
        if field.name == "seed" and value is not None:
            check_seed("seed", value)


def checked_size(model: FlowModel, height: int | None, width: int | None) -> tuple[int, int]:
    """Return the size to draw at in pixels, the model's own where none is given."""
    own_height, own_width = model.default_size
    size = (
        own_height if height is None else check_count("height", height, 1, LONGEST_SIDE),
        own_width if width is None else check_count("width", width, 1, LONGEST_SIDE),
    )
    model.check_size(*size)
    check_fits(model, *size)
    return size


def check_callback(callback: Any) -> None:
    """Raise InputError unless it can be called, or is None."""
    check_callable("callback", callback)
