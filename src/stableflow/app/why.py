"""Why an edit looks as it does: how vital each layer is, and what a point attends to."""

from collections.abc import Sequence
from typing import Any

from stableflow.app.desk import Job
from stableflow.editing.attention import PromptAttention, attention
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.models.base import FlowModel, ShowsAttention
from stableflow.order import Order
from stableflow.vital.presets import known_preset


def chart_of(model: FlowModel) -> dict[str, Any]:
    """Return the vital layers of a model as numbers for a chart; `vitality` is empty where it was not measured."""
    preset = known_preset(model)
    measured = {} if preset is None else dict(preset.vitality)
    by, vitality = next(iter(measured.items()), ("", []))
    return {
        "model": model.name,
        "kinds": [layer.kind for layer in model.layers],
        "chosen": [] if preset is None else list(preset.layers),
        "vitality": list(vitality),
        "by": by,
        "source": "" if preset is None else preset.source,
        "attention": isinstance(model, ShowsAttention),
    }


def watched(order: Order, model: FlowModel) -> StableFlow:
    """Return the editor of an order whose attention can be watched.

    Raises:
        InputError: The method is not Stable Flow.
    """
    editor = order.make_editor(model)
    if not isinstance(editor, StableFlow):
        raise InputError("Attention is shown for edits by stable-flow; choose it as the method.")
    return editor.having(strength=None)


def attention_of(editor: StableFlow, source: Source, order: Order, job: Job, point: tuple[int, int]) -> dict[str, Any]:
    """Return what a pixel (x, y) attends to in the source and the first edit, in vital layers and in the others.

    Raises:
        InputError: The point lies outside.
    """
    job.begin("watching the attention")
    found = attention(editor, source, order.to[:1], points=[point], callback=job.told)
    vital = editor.chosen_layers
    others = [layer for layer in found.source.layers if layer not in vital]
    groups = {"vital": vital, "other": others} if vital and others else {"all": found.source.layers}
    return {
        "point": list(point),
        "groups": {name: list(layers) for name, layers in groups.items()},
        "injected": list(found.injected),
        "passes": [
            {"prompt": shown.prompt, "words": list(shown.words)}
            | {"groups": {name: _looks(shown, layers) for name, layers in groups.items()}}
            for shown in (found.source, found.edits[0])
        ],
    }


def _looks(shown: PromptAttention, layers: Sequence[int]) -> dict[str, Any]:
    mean = shown.mean(layers)
    return {
        "image": [[round(value, 6) for value in row] for row in mean.image[0].tolist()],
        "image_sum": round(float(mean.image_sum[0]), 4),
        "words": [round(value, 4) for value in mean.text[0].tolist()],
        "rest": round(float(mean.rest[0]), 4),
    }
