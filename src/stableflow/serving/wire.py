"""What goes between the door and the replicas: orders with their files, and results without what stays there."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stableflow.app.history import Run
from stableflow.editing.least import AUTO
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.stack import Stroke
from stableflow.editing.where import describe
from stableflow.flow.trajectory import Trajectory
from stableflow.models.base import Conditioning
from stableflow.order import Order
from stableflow.region import Region

What = Literal["edit", "layers", "source", "session", "where", "why"]
TOGETHER = "stable-flow"  # the method whose edits of one source may share a batch
ALIKE = ("mask", "box", "polygon", "points", "word")  # regions that do not depend on the edited prompts
EACH = ("edits", "edit_guidance", "edit_strength", "guidance_scale", "outside_change", "shift")
"""Of a recipe: what has one value an edit."""


@dataclass(frozen=True)
class Asked:
    """One piece of work for a replica.

    Args:
        what: Which work.
        model: Its name.
        owner: Whose: nobody edits another's session.
        values: The order as JSON values; files are named without their folders.
        files: Their contents.
        point: A pixel, for "why".
        strokes: For "layers"; regions of masks by their amounts.
    """

    what: What
    model: str
    owner: str
    values: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    point: tuple[int, int] | None = None
    strokes: tuple[Stroke, ...] = ()

    @property
    def session(self) -> str:
        """Which session it needs, as far as the order says: requests with the same one go to one replica."""
        names = ("prompt", "image", "seed", "height", "width", "steps", "solver", "guidance", "inversion", "nudge")
        made = [self.model, self.owner, *(self.values.get(name) for name in names)]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:32]

    @property
    def together(self) -> str | None:
        """What edits have in common that may be drawn in one batch; None where one must be drawn alone.

        Rows of a batch are equal to single runs to rounding.
        """
        values = self.values
        region = str(values.get("region") or "box:").partition(":")[0].removeprefix("~")
        alone = (
            self.what != "edit" or values.get("editor", TOGETHER) != TOGETHER or values.get("task")
            or values.get("together") or AUTO in (values.get("strength"), values.get("set", {}).get("strength"))
            or values.get("guidance_each") or values.get("strength_each") or region not in ALIKE
        )  # fmt: skip
        if alone:
            return None
        shared = {name: value for name, value in values.items() if name != "to"}
        return json.dumps([self.model, self.owner, shared], sort_keys=True)


def asked_of(
    what: What, order: Order, owner: str, point: tuple[int, int] | None = None, strokes: Sequence[Stroke] = ()
) -> Asked:
    """Return the work of an order, its picture and masks read into it."""
    files: dict[str, bytes] = {}

    def packed(path: str) -> str:
        files[Path(path).name] = Path(path).read_bytes()
        return Path(path).name

    values = _with_files(order.model_dump(mode="json", exclude_unset=True), packed)
    return Asked(what, order.model, owner, values, files, point, tuple(map(_portable, strokes)))


def order_of(asked: Asked, folder: Path) -> Order:
    """Return the order of some work, its files written into a folder."""

    def unpacked(name: str) -> str:
        path = folder / Path(name).name
        path.write_bytes(asked.files[name])
        return str(path)

    return Order(**_with_files(dict(asked.values), unpacked))


def _portable(stroke: Stroke) -> Stroke:
    """A stroke whose mask's file is read into its region."""
    kind, _, path = str(stroke.region).partition(":")
    if not isinstance(stroke.region, str) or kind.removeprefix("~") != "mask":
        return stroke
    region = Region.from_mask(path)
    return dataclasses.replace(stroke, region=describe(~region if kind.startswith("~") else region))


def light(source: Source) -> Source:
    """Return a source without what only further edits of it need: states, keys and values, embeddings."""
    path = dataclasses.replace(source.path, trajectory=Trajectory({0.0: source.path.at(0.0)}), offsets={}, store=None)
    bare = Conditioning(source.conditioning.prompts, {})
    return dataclasses.replace(source, path=path, conditioning=bare, kept={}).to("cpu")


def split(run: Run, counts: Sequence[int]) -> list[Run]:
    """Return the parts of a run that drew several requests' edits in one batch: so many edits each."""
    parts, start, result = [], 0, run.result
    for count in counts:
        rows = slice(start, start := start + count)
        sliced = {name: value[rows] for name in EACH if isinstance(value := result.recipe.get(name), list)}
        recipe = result.recipe | (sliced if len(counts) > 1 else {})  # of layers, "edits" are what one picture shows
        part = EditResult(
            result.prompts[rows], result.images[rows], result.latents[rows].cpu(), light(result.source), recipe,
            result.region,
        )  # fmt: skip
        parts.append(dataclasses.replace(run, result=part, leanings=list(run.leanings[rows])))
    return parts


def _with_files(values: dict[str, Any], found: Callable[[str], str]) -> dict[str, Any]:
    """Return an order's values with every path of a file replaced."""

    def region(text: str | None) -> str | None:
        kind, colon, path = (text or "").partition(":")
        return f"{kind}:{found(path)}" if colon and kind.removeprefix("~") == "mask" else text

    if values.get("image") is not None:
        values["image"] = found(values["image"])
    if values.get("region") is not None:
        values["region"] = region(values["region"])
    if values.get("set", {}).get("moves"):
        moves = [move | {"region": region(move["region"])} for move in values["set"]["moves"]]
        values["set"] = values["set"] | {"moves": moves}
    return values
