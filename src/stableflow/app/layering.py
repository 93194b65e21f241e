"""Layers over a picture: drawn, saved with lines that draw them again, and read back from a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stableflow.app.ask import Ask, Layer
from stableflow.app.codes import layers_lines
from stableflow.app.desk import Job
from stableflow.app.history import require_place, save_entry
from stableflow.app.visitors import Visitor
from stableflow.app.work import ROOM, Office, Work
from stableflow.editing.stack import Stroke
from stableflow.errors import InputError
from stableflow.images import to_pil


def layers(office: Office, visitor: Visitor, ask: Ask) -> Work:
    """Return the work of drawing layers over a picture; those that a kept picture has already are not drawn again.

    Raises:
        InputError: No layer shows, one has no region, or fields of edits are given.
    """
    _check(ask)
    order = office.orders(visitor, ask)[0]
    shown = [layer for layer in ask.layers if not layer.hidden]
    masks = {f"mask_{n}": visitor.upload(layer.mask) for n, layer in enumerate(ask.layers) if layer.mask is not None}
    strokes = [_stroke(layer, visitor) for layer in shown]
    office.visitors.require_room(visitor, ROOM)
    require_place(visitor, office.limits.history)

    def work(job: Job) -> Any:
        run = office.studio.layers(order, strokes, job)
        office.check_results([to_pil(pixels) for pixels in run.result.images])
        said = ask.model_copy(update={"seed": order.seed} if order.image is None else {})
        values = said.model_dump(exclude_defaults=True, by_alias=True)
        lines = layers_lines(order, [_arguments(n, layer) for n, layer in enumerate(ask.layers) if not layer.hidden])
        return save_entry(visitor, values, [run], masks, lines, office.credentials) | {"notes": list(run.notes)}

    return work


def _check(ask: Ask) -> None:
    edits = ("to", "task", "move", "editors", "strength", "strengths", "seeds", "where", "mask", "set")
    beside = [name for name in edits if getattr(ask, name)]
    if beside:
        raise InputError(f"Layers take no {beside[0]!r}: each layer says what it shows, and where.")
    if all(layer.hidden for layer in ask.layers):
        raise InputError("No layer shows. Add one, or show one that is hidden.")
    for number, layer in enumerate(ask.layers, start=1):
        if not layer.prompt.strip():
            raise InputError(f"Layer {number}: describe the picture as this layer wants it.")
        if layer.where is None and layer.mask is None:
            raise InputError(f"Layer {number}: say where it shows: a thing of the description, or mark it.")


def _stroke(layer: Layer, visitor: Visitor) -> Stroke:
    region = layer.where if layer.mask is None else f"mask:{visitor.upload(layer.mask)}"
    assert region is not None
    return Stroke(layer.prompt, region, seed=layer.seed, strength=layer.strength, amount=layer.amount)


def _arguments(number: int, layer: Layer) -> dict[str, Any]:
    """What `Stroke` takes, with the mask's file as it is called beside the lines."""
    region = layer.where if layer.mask is None else f"mask:mask_{number}.png"
    return {"prompt": layer.prompt, "region": region} | {
        name: getattr(layer, name) for name in ("seed", "strength", "amount")
    }


def put_back(folder: Path, ask: dict[str, Any], keep: Any) -> None:
    """Put the masks of an entry's layers among the uploads again.

    Args:
        folder: Of the entry.
        ask: Its request, in which the ids are set.
        keep: From bytes to an upload's id.
    """
    found: Sequence[dict[str, Any]] = ask.get("layers", [])
    ask["layers"] = [
        layer | ({"mask": keep(file.read_bytes())} if (file := folder / f"mask_{number}").is_file() else {})
        for number, layer in enumerate(found)
    ]
