"""What a page or a program asks for: data, checked field by field. Nothing in it names a model, a file or code."""

import math
import secrets
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stableflow.app.limits import Limits
from stableflow.checks import LARGEST_SEED, check_text
from stableflow.editing import EDITORS
from stableflow.editing.where import check_kind
from stableflow.errors import InputError
from stableflow.order import Order
from stableflow.reading import faults, short

FREE_REGIONS = ("box", "polygon", "points", "word", "change", "foreground", "lost")
"""Kinds of regions that a request may describe in words: none that names a file."""

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Strength = Annotated[float, Field(ge=0, le=1)]


class Shift(BaseModel):
    """Where a thing goes: pixels of the source, and its size there."""

    model_config = ConfigDict(extra="forbid")

    dx: float = Field(0.0, ge=-4096, le=4096, allow_inf_nan=False)
    dy: float = Field(0.0, ge=-4096, le=4096, allow_inf_nan=False)
    scale: float = Field(1.0, ge=0.05, le=20, allow_inf_nan=False)
    turn: float = Field(0.0, ge=-360, le=360, allow_inf_nan=False)
    copy_it: bool = Field(False, alias="copy")


class Layer(BaseModel):
    """One layer over a picture: what it shows, and where.

    Args:
        prompt: The picture as the layer wants it; drawn in its region alone.
        where, mask: The region, as in a request; one of them.
        seed: Of its noise: another seed draws another layer.
        strength: How early it begins, in (0, 1].
        amount: Share of its noise that is new.
        hidden: Left out for now.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: str
    where: str | None = Field(None, max_length=2000)
    mask: Id | None = None
    seed: Seed = 0
    strength: float = Field(0.95, gt=0, le=1)
    amount: Strength = 0.8
    hidden: bool = False


class Ask(BaseModel):
    """One request of the page.

    Args:
        prompt: What the source shows.
        picture: An uploaded picture, by its id; a picture is drawn when None.
        seed, seeds: Of the drawn picture; several make a grid.
        to: The edited prompts.
        task: What is wanted, by name, which chooses the method.
        move: How the thing in `where` or `mask` moves, which the method "move" does.
        layers: Drawn over the picture, the first of them lowest, instead of edits.
        editor, editors: The method; several are compared.
        strength, strengths: The dial, the method's own when None, "auto" for the least that does it; several: a grid.
        where: A region in words: "word:dog", "~word:dog", "box:x,y,width,height", "change", "foreground".
        mask: An uploaded mask, by its id, instead.
        exact: Whether the given pixels are put back outside; by default as the task says.
        steps, guidance, height, width, solver, inversion, nudge, negative, preset, set: As in an order.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: str
    picture: Id | None = None
    seed: Seed | None = None
    seeds: list[Seed] = Field(default_factory=list, max_length=64)
    to: list[str] = Field(default_factory=list, max_length=64)
    task: str | None = Field(None, max_length=40)
    move: Shift | None = None
    layers: list[Layer] = Field(default_factory=list, max_length=64)
    editor: str = "stable-flow"
    editors: list[str] = Field(default_factory=list, max_length=64)
    strength: Strength | Literal["auto"] | None = None
    strengths: list[Strength] = Field(default_factory=list, max_length=64)
    where: str | None = Field(None, max_length=2000)
    mask: Id | None = None
    exact: bool | None = None
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    height: int | None = Field(None, ge=16)
    width: int | None = Field(None, ge=16)
    solver: str | dict[str, Any] | None = None
    inversion: Literal["aligned", "paper"] | None = None
    nudge: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    negative: str | None = None
    preset: Literal["exact", "balanced", "fast"] | None = None
    set: dict[str, Any] = Field(default_factory=dict, max_length=40)


def read_ask(values: Any, limits: Limits, *, side: int) -> Ask:
    """Check a request.

    Args:
        values: Its JSON.
        side: The longest side that the model may be asked to draw, in pixels.

    Raises:
        InputError: Names every field that is unknown, out of range or over a limit.
    """
    try:
        ask = Ask.model_validate(values)
    except ValidationError as error:
        raise InputError(f"The request cannot be read: {faults(error)}.") from error
    said = [("prompt", ask.prompt), *(("to", text) for text in ask.to), ("negative", ask.negative or "")]
    for name, text in [*said, *((f"layer {number}", layer.prompt) for number, layer in enumerate(ask.layers, start=1))]:
        _check_words(name, text, limits.text)
    if not ask.prompt.strip():
        raise InputError("Say what the picture shows, such as 'a dog standing on the grass'.")
    if ask.steps is not None and ask.steps > limits.steps:
        raise InputError(f"steps: this app takes up to {limits.steps} steps, got {ask.steps}.")
    if max(ask.height or 0, ask.width or 0) > side:
        raise InputError(f"height and width: this app draws up to {side} pixels a side.")
    for placed in (ask, *ask.layers):
        _check_where(placed)
    _check_settings(ask.set, limits)
    if ask.picture is not None and (ask.seed is not None or ask.seeds):
        raise InputError("A seed draws a picture, and one was given; leave one of them out.")
    if count(ask) > limits.pictures:
        raise InputError(f"This asks for {count(ask)} pictures at once; this app makes up to {limits.pictures}.")
    return ask


def count(ask: Ask) -> int:
    """Return how many pictures a request makes."""
    asked = (ask.to, ask.layers, ask.seeds, ask.strengths, ask.editors)
    return math.prod(max(1, len(some)) for some in asked)


def orders(ask: Ask, file: Callable[[str], Path], loaded: Mapping[str, Any]) -> list[Order]:
    """Return the runs of a request, one for each editor, seed and strength.

    Args:
        file: From the id of an upload of this visitor to its file.
        loaded: What the app's model is and how it was loaded, by the names of an order.

    Raises:
        InputError, UnknownNameError: There is no such upload or editor, or a value does not go with another.
    """
    image = None if ask.picture is None else file(ask.picture)
    region = ask.where if ask.mask is None else f"mask:{file(ask.mask)}"
    if ask.move is not None:
        return [_moving(ask, ask.move, image, region, loaded)]
    drawn = [None] if image is not None else ask.seeds or [secrets.randbelow(2**31) if ask.seed is None else ask.seed]
    strengths: list[float | Literal["auto"] | None] = [*ask.strengths] or [ask.strength]
    made = []
    for name, seed, strength in product(ask.editors or [ask.editor], drawn, strengths):
        chosen: dict[str, Any] = {"editor": name} if ask.task is None else {"task": ask.task}
        known = EDITORS[Order(**chosen).method].setting_names()
        order = Order(
            **loaded, **chosen, prompt=ask.prompt, image=image, seed=seed, steps=ask.steps, guidance=ask.guidance,
            height=ask.height, width=ask.width, solver=ask.solver, inversion=ask.inversion, nudge=ask.nudge,
            to=ask.to, exact=ask.exact, strength=strength, region=region, negative=ask.negative,
            preset=ask.preset if "preset" in known else None, set=ask.set if name == ask.editor else {},
        )  # fmt: skip
        order.check()
        made.append(order)
    return made


def _moving(ask: Ask, move: Shift, image: Path | None, region: str | None, loaded: Mapping[str, Any]) -> Order:
    """The run that moves a thing."""
    if region is None:
        raise InputError("Say what is to move: a thing of the description, or mark it in the picture.")
    seed = None if image is not None else secrets.randbelow(2**31) if ask.seed is None else ask.seed
    moved = {"region": region, **move.model_dump(exclude_defaults=True, by_alias=True)}
    order = Order(
        **loaded, prompt=ask.prompt, image=image, seed=seed, steps=ask.steps, guidance=ask.guidance, height=ask.height,
        width=ask.width, to=ask.to, editor="move", strength=ask.strength, preset=ask.preset, set={"moves": [moved]},
    )  # fmt: skip
    order.check()
    return order


def _check_words(name: str, text: str, longest: int) -> None:
    check_text(name, text)
    if len(text) > longest:
        raise InputError(f"{name} has {len(text)} characters; this app takes up to {longest}.")
    if any(ord(character) < 32 and character not in "\n\t" for character in text):
        raise InputError(f"{name} holds control characters: {short(text)}.")


def _check_where(ask: Ask | Layer) -> None:
    if ask.where is None:
        return
    if ask.mask is not None:
        raise InputError("where and mask both say where the edit may act; leave one of them out.")
    check_kind(ask.where)
    kind = ask.where.partition(":")[0].removeprefix("~")
    if kind not in FREE_REGIONS:
        raise InputError(f"where: a request describes a region as {', '.join(FREE_REGIONS)}, got {kind!r}.")


def _check_settings(settings: dict[str, Any], limits: Limits) -> None:
    """Hold a method's own settings to plain values, and what multiplies its work to the app's steps."""
    for name, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        plain = all(isinstance(number, str | int | float | bool | None | list) for number in numbers)
        if len(name) > 64 or len(str(value)) > 2000 or not (plain or name in ("preset", "policy", "weight")):
            raise InputError(f"set: {short(name)} takes a plain value here, got {short(value)}.")
        if isinstance(value, int) and not isinstance(value, bool) and "seed" not in name and value > limits.steps:
            raise InputError(f"set: {name} may be up to {limits.steps} in this app, got {value}.")
        if name == "preset" and isinstance(value, dict) and not _bounded(value, limits.steps):
            raise InputError(f"set: the preset asks for more than {limits.steps} steps.")


def _bounded(value: Any, most: int) -> bool:
    if isinstance(value, dict):
        return all(_bounded(part, most) for part in value.values())
    return not isinstance(value, int | float) or value <= most
