"""Where an edit may act: what a region is described by, and those that are drawn; `finding.py` looks for the others."""

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from stableflow.checks import check_text
from stableflow.editing.source import Source
from stableflow.errors import InputError, unknown_name
from stableflow.models.base import Conditioning, FlowModel, Guidance
from stableflow.reading import short
from stableflow.region import Region
from stableflow.registry import Registry
from stableflow.types import Latents


@runtime_checkable
class Wish(Protocol):
    """An edit that may bring a region of its own."""

    @property
    def region(self) -> Any: ...


@runtime_checkable
class Asked(Protocol):
    """What finding a region may ask of a run."""

    source: Source
    model: FlowModel
    edits: Conditioning

    @property
    def wishes(self) -> Sequence[Wish]: ...
    @property
    def clean(self) -> Latents: ...
    def velocity(self, z: Latents, t: float, conditioning: Conditioning, guidance: Guidance) -> Latents: ...
    def scale(self, guidance: float | None) -> float | None: ...


Where = Region | str | Callable[[Asked], Region]
"""A region, its description as "KIND" or "KIND:DETAILS", or what finds one for a run; `REGIONS` lists the kinds."""

Finder = Callable[[Asked, str], Region]
REGIONS: Registry[Finder] = Registry("kind of region")
"""From a kind to what makes a region of it: given the run and the details behind the colon."""

BOX, POLYGON, POINTS = "box:x,y,width,height", "polygon:x,y,x,y,x,y", "points:RADIUS,x,y,x,y"
FARTHEST = 1e6  # pixels


def region_of(run: Asked, region: Any) -> Region | None:
    """Return the region of every edit of a run, at the source's pixels: its own, or the one of the call.

    Raises:
        InputError: A region is of another aspect, or its description is wrong.
    """
    asked = [region if wish.region is None else wish.region for wish in run.wishes]
    if all(where is None for where in asked):
        return None
    size = size_of(run)
    known: dict[int, Region] = {}
    rows = []
    for row, where in enumerate(asked):
        if id(where) not in known:
            known[id(where)] = Region.everywhere(size) if where is None else _found(run, where).fitted(size)
        rows.append(known[id(where)].row(row).amount)
    return Region(torch.cat(rows))


def all_but(words: Sequence[str] | None, region: Where | None) -> Where | None:
    """Return the region that is everything but where these words show; the region itself where there are none.

    Raises:
        InputError: Both are given, or a word is none.
    """
    if words is None:
        return region
    if region is not None:
        raise InputError("Give keep or region, not both: each says where the edit may act.")
    if isinstance(words, str) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise InputError(f"keep takes words of the source's prompt, such as ['dog', 'sign'], got {short(words)}.")
    return f"keep:{','.join(words)}"


def found(run: Asked, where: Where) -> Region:
    """Return one region of a run's source, at its pixels.

    Raises:
        InputError: It is described wrongly, of another aspect, or not the same for all edits.
    """
    region = _found(run, where).fitted(size_of(run))
    if any(region.row(row) != region.row(0) for row in range(1, len(region))):
        raise InputError(f"One region is asked for, and {short(where)} is another for each edit.")
    return region.row(0)


def check_where(text: str) -> None:
    """Raise unless this describes a region as far as can be told without a picture: its kind, and the mask's file."""
    check_kind(text)
    kind, _, details = text.partition(":")
    if kind.removeprefix("~") == "mask":
        Region.from_mask(details)


def check_kind(text: str) -> None:
    """Raise UnknownNameError unless this describes a region of a kind that is known."""
    kind = check_text("region", text).partition(":")[0]
    if kind.removeprefix("~") not in REGIONS:
        raise unknown_name("kind of region", kind, REGIONS)


def _found(run: Asked, where: Any) -> Region:
    if isinstance(where, Region):
        return where
    if isinstance(where, str):
        kind, _, details = where.partition(":")
        inverted = kind.startswith("~")
        region = REGIONS[kind.removeprefix("~")](run, details)
        return ~region if inverted else region
    if callable(where) and not isinstance(where, type):
        answer = where(run)
        if not isinstance(answer, Region):
            raise InputError(f"A function given as region must return a Region, got {short(answer)}.")
        return answer
    raise InputError(f"region must be a Region, its description or a function of a run, got {short(where)}.")


def describe(region: Region) -> str:
    """Return a region as the text that `REGIONS` reads: "amount:ROWSxHEIGHTxWIDTH:BASE64"."""
    data = base64.b64encode(zlib.compress(region.amount.contiguous().numpy().tobytes(), 9)).decode()
    return f"amount:{'x'.join(map(str, region.amount.shape))}:{data}"


@REGIONS.register("amount")
def of_amounts(run: Asked, details: str) -> Region:
    """What `describe` wrote: the amounts themselves."""
    return read_amounts(details)


def read_amounts(details: str) -> Region:
    """Return the region that `describe` wrote behind "amount:".

    Raises:
        InputError: It is damaged, or larger than a picture may be.
    """
    shape_text, _, data = details.partition(":")
    try:
        rows, height, width = (int(side) for side in shape_text.split("x"))
        wanted = rows * height * width * 4
        if not 0 < wanted <= 2**30:
            raise ValueError("its size is out of range")
        packed = zlib.decompressobj()
        raw = packed.decompress(base64.b64decode(data, validate=True), wanted)
        if len(raw) != wanted or (not packed.eof and packed.decompress(packed.unconsumed_tail, 1)):
            raise ValueError("its data have another size")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise InputError(f"The region of amounts {short(details)} is damaged: {error}.") from error
    return Region(torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(rows, height, width))


@REGIONS.register("mask")
def of_mask(run: Asked, details: str) -> Region:
    """A mask file: white is inside, "mask:FILE"; any size of the picture's aspect."""
    return Region.from_mask(details)


@REGIONS.register("box")
def of_box(run: Asked, details: str) -> Region:
    """A box of the source's pixels from its top left corner: "box:x,y,width,height"."""
    sides = _numbers(details, BOX, 4)
    if any(side != int(side) for side in sides):
        raise _misdescribed(details, f"{BOX} in whole numbers")
    x, y, width, height = (int(side) for side in sides)
    return Region.box(x, y, width, height, size_of(run))


@REGIONS.register("polygon")
def of_polygon(run: Asked, details: str) -> Region:
    """The inside of a polygon of pixels: "polygon:x,y,x,y,x,y"."""
    return Region.polygon(_pairs(details, POLYGON, _numbers(details, POLYGON)), size_of(run))


@REGIONS.register("points")
def of_points(run: Asked, details: str) -> Region:
    """Discs of a radius around pixels: "points:RADIUS,x,y,x,y"."""
    radius, *numbers = _numbers(details, POINTS)
    return Region.points(_pairs(details, POINTS, numbers), radius, size_of(run))


def size_of(run: Asked) -> tuple[int, int]:
    """Return height and width of the source's picture."""
    height, width = run.source.images.shape[-2:]
    return height, width


def take_none(kind: str, details: str) -> None:
    """Raise InputError where a kind of region that takes no details is given some."""
    if details:
        raise InputError(f'The region {kind!r} takes no details, got {short(details)}; "word:dog" finds a word.')


def _numbers(details: str, form: str, count: int | None = None) -> list[float]:
    try:
        numbers = [float(part) for part in details.split(",")]
    except ValueError:
        raise _misdescribed(details, form) from None
    if any(not abs(number) <= FARTHEST for number in numbers) or (count is not None and len(numbers) != count):
        raise _misdescribed(details, form)
    return numbers


def _pairs(details: str, form: str, numbers: Sequence[float]) -> list[tuple[float, float]]:
    if len(numbers) % 2:
        raise _misdescribed(details, form)
    return list(zip(numbers[::2], numbers[1::2]))


def _misdescribed(details: str, form: str) -> InputError:
    return InputError(f"A region is described as {form}, in pixels of the picture, got {short(details)}.")
