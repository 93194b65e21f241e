"""What pages and recipes ask of a model, as plain values: the model itself may be in another process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stableflow.app.why import chart_of
from stableflow.editing import EDITORS
from stableflow.errors import StableFlowError
from stableflow.models.base import FlowModel
from stableflow.models.model import DiffusersModel
from stableflow.vital.presets import default_nudge_scale


@dataclass(frozen=True)
class Card:
    """A loaded model.

    Args:
        name: What it is called.
        size: Usual (height, width) of its pictures, in pixels.
        words: That it knows; empty where it knows any.
        chart: Its vital layers, for a chart.
        guidance: Its usual scale; None where it takes none.
        nudge: The nudging that suits it.
        settings: Of every editor that works with it, by name: its usual settings as JSON values.
    """

    name: str
    size: tuple[int, int]
    words: tuple[str, ...]
    chart: Mapping[str, Any]
    guidance: float | None
    nudge: float
    settings: Mapping[str, Mapping[str, Any]]


def card_of(model: FlowModel) -> Card:
    """Return the card of a loaded model."""
    words = tuple(model.vocabulary()) if isinstance(model, DiffusersModel) else ()
    settings = {}
    for name in EDITORS:
        try:
            settings[name] = EDITORS[name](model).settings()
        except StableFlowError:  # not for this model
            continue
    height, width = model.default_size
    return Card(
        model.name, (height, width), words, chart_of(model), model.default_guidance_scale, default_nudge_scale(model),
        settings,
    )  # fmt: skip
