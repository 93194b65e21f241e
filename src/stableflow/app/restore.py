"""From a PNG that was made here back to the request behind it. A recipe is data: it chooses no model, file or code."""

from pathlib import Path
from typing import Any

from stableflow.app.ask import FREE_REGIONS, read_ask
from stableflow.app.card import Card
from stableflow.app.history import entries, find_entry
from stableflow.app.limits import Limits
from stableflow.app.visitors import Visitor, png_bytes
from stableflow.editing.presets import PRESETS
from stableflow.editing.where import read_amounts
from stableflow.errors import ImageError, InputError, StableFlowError
from stableflow.flow.solvers import describe_solver, make_solver
from stableflow.images import read_recipe, to_pil
from stableflow.order import DRAWN_STEPS, REAL_GUIDANCE, SHORT, from_recipe

BEYOND = ("together", "guidance_each", "strength_each")  # what a run may have that the page does not
KEPT = ("prompt", "seed", "to", "editor", "steps", "guidance", "height", "width", "solver", "inversion", "nudge", "set")


def restored(visitor: Visitor, file: Path, card: Card, limits: Limits, *, side: int) -> dict[str, Any] | None:
    """Return the request behind a picture, and what to tell its owner; None where the picture holds no recipe.

    Args:
        file: An upload of this visitor.
        side: The longest side that the model may be asked to draw.
    """
    try:
        recipe = read_recipe(file)
    except ImageError:
        return None
    try:
        strokes = recipe.get("strokes", ())
        values = from_recipe({**recipe, "strokes": ()})
        ask, notes = _ask_of(visitor, values, card, limits)
        if strokes:
            ask = _layers_of(visitor, ask, strokes, limits)
        checked = read_ask(ask, limits, side=side)
    except (StableFlowError, TypeError, ValueError, AttributeError, KeyError) as error:
        return {"ask": None, "notes": [f"The recipe in this picture cannot be used here: {str(error)[:300]}"]}
    return {"ask": checked.model_dump(exclude_defaults=True, by_alias=True), "notes": notes}


def _ask_of(visitor: Visitor, values: dict[str, Any], card: Card, limits: Limits) -> tuple[dict[str, Any], list[str]]:
    beyond = [name for name in BEYOND if values.get(name)]
    if beyond:
        raise InputError(
            f"the page has no {beyond[0].replace('_', ' ')}. `stableflow edit --from-image` makes it again."
        )
    ask = {name: values[name] for name in KEPT if values.get(name) is not None}
    notes = []
    if values.get("exact") is False:
        ask["exact"] = False
    if values["model"] != card.name:
        notes.append(f"It was made with another model ({str(values['model'])[:80]!r}), so the picture will differ.")
    moves = ask.get("set", {}).pop("moves", None)
    _shorten(ask, values, card)
    if values["image_digest"] is not None:
        ask.pop("seed", None)
        picture = _own_picture(visitor, str(values["image_digest"]), limits)
        if picture is None:
            notes.append("It edits a picture that the file does not hold; please give that picture again.")
        else:
            ask["picture"] = picture
    region = values.get("region")
    if moves:
        if len(moves) != 1:
            raise InputError("it moves several things, which the page does not.")
        ask |= {"move": {name: value for name, value in moves[0].items() if name != "region"}}
        region = moves[0]["region"]
    return ask | _placed(visitor, region, limits), notes


def _layers_of(visitor: Visitor, ask: dict[str, Any], strokes: Any, limits: Limits) -> dict[str, Any]:
    """The request of a picture that was drawn in layers, from the one of its uppermost."""
    layers = []
    for stroke in strokes:
        layer = {name: stroke[name] for name in ("prompt", "seed", "strength", "amount")}
        layer |= _placed(visitor, stroke["region"], limits)
        layers.append(layer)
    beside = ("to", "editor", "set", "where", "mask", "strength")
    return {name: value for name, value in ask.items() if name not in beside} | {"layers": layers}


def _placed(visitor: Visitor, region: Any, limits: Limits) -> dict[str, str]:
    """A recipe's region as a request says it."""
    if not isinstance(region, str):
        return {}
    if region.startswith("amount:"):
        return {"mask": _mask_of(visitor, region, limits)}
    if region.partition(":")[0].removeprefix("~") not in FREE_REGIONS:
        raise InputError("its region names a file.")
    return {"where": region}


def _shorten(ask: dict[str, Any], values: dict[str, Any], card: Card) -> None:
    """Leave out what is usual, and give settings that have a field of their own in it."""
    settings = dict(ask.get("set", {}))
    if isinstance(settings.get("strength"), list) and len(settings["strength"]) == 1:
        settings["strength"] = settings["strength"][0]
    for short in ("strength", "negative"):
        if settings.get(SHORT[short]) is not None and not isinstance(settings[SHORT[short]], list):
            ask[short] = settings.pop(SHORT[short])
    speed = PRESETS["exact"]
    described = settings.pop("preset", None)
    for name, preset in PRESETS.items():
        if described in (name, preset.describe()):
            speed = preset
            ask |= {} if name == "exact" else {"preset": name}
    drawn = values["image_digest"] is None
    usual = {
        "steps": DRAWN_STEPS if drawn else speed.num_steps, "inversion": speed.inversion,
        "guidance": card.guidance if drawn else REAL_GUIDANCE, "nudge": card.nudge,
    }  # fmt: skip
    for name, value in usual.items():
        if ask.get(name) == value:
            ask.pop(name, None)
    if drawn and (ask.get("height"), ask.get("width")) == card.size:
        del ask["height"], ask["width"]
    if ask.get("solver") is not None:
        solver = describe_solver(make_solver(ask["solver"]))
        if solver == describe_solver(make_solver("euler" if drawn else dict(speed.solver))):
            ask.pop("solver")
    if ask["editor"] not in card.settings:
        raise InputError(f"its method {ask['editor']!r} does not work with this model.")
    own = card.settings[ask["editor"]]
    ask["set"] = {name: value for name, value in settings.items() if value is not None and value != own.get(name)}


def _own_picture(visitor: Visitor, digest: str, limits: Limits) -> str | None:
    """The picture of this digest in the visitor's own history, put back among the uploads."""
    for entry in entries(visitor, limits.history):
        if any(run.get("image") == digest for run in entry.get("runs", [])):
            given = find_entry(visitor, entry["id"]) / "given"
            if given.is_file():
                return visitor.keep_upload(given.read_bytes(), limits)
    return None


def _mask_of(visitor: Visitor, region: str, limits: Limits) -> str:
    amounts = read_amounts(region.removeprefix("amount:")).amount[:1]
    return visitor.keep_upload(png_bytes(to_pil(amounts.expand(3, -1, -1)).convert("L")), limits)
