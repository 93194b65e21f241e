"""Where an edit may act: regions that are drawn, described in a word, or found by the model itself."""

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.otsu import otsu_threshold
from stableflow.errors import InputError, InterventionError, unknown_name
from stableflow.interventions import AttentionMean, CaptureAttention
from stableflow.models.base import ShowsAttention
from stableflow.reading import short
from stableflow.region import Region
from stableflow.registry import Registry

if TYPE_CHECKING:
    import stableflow.editing.run

Where = Region | str | Callable[["stableflow.editing.run.Run"], Region]
"""A region, its description as "KIND" or "KIND:DETAILS", or what finds one for a run; `REGIONS` lists the kinds."""

Finder = Callable[["stableflow.editing.run.Run", str], Region]
REGIONS: Registry[Finder] = Registry("kind of region")
"""From a kind to what makes a region of it: given the run and the details behind the colon."""

LOOK_AT = (0.9, 0.75, 0.6, 0.45)
"""Flow times at which the model is asked where something is: what a picture shows is settled early."""


def region_of(run: "stableflow.editing.run.Run", region: Where | None) -> Region | None:
    """Return the region of every edit of a run, at the source's pixels: its own, or the one of the call.

    Raises:
        InputError: A region is of another aspect, or its description is wrong.
    """
    asked = [region if wish.region is None else wish.region for wish in run.wishes]
    if all(where is None for where in asked):
        return None
    size = tuple(run.source.images.shape[-2:])
    found: dict[int, Region] = {}
    rows = []
    for row, where in enumerate(asked):
        if id(where) not in found:
            found[id(where)] = Region.everywhere(size) if where is None else _found(run, where).fitted(size)
        rows.append(found[id(where)].row(row).amount)
    return Region(torch.cat(rows))


def check_where(text: str) -> None:
    """Raise unless this describes a region as far as can be told without a picture: its kind, and the mask's file."""
    kind, _, details = text.partition(":")
    if kind.removeprefix("~") not in REGIONS:
        raise unknown_name("kind of region", kind, REGIONS)
    if kind.removeprefix("~") == "mask":
        Region.from_mask(details)


def _found(run: "stableflow.editing.run.Run", where: Where) -> Region:
    if isinstance(where, Region):
        return where
    if isinstance(where, str):
        kind, _, details = where.partition(":")
        inverted = kind.startswith("~")
        region = REGIONS[kind.removeprefix("~")](run, details)
        return ~region if inverted else region
    if callable(where):
        return where(run)
    raise InputError(f"region must be a Region, its description or a function of a run, got {short(where)}.")


def describe(region: Region) -> str:
    """Return a region as the text that `REGIONS` reads: "amount:ROWSxHEIGHTxWIDTH:BASE64"."""
    data = base64.b64encode(zlib.compress(region.amount.contiguous().numpy().tobytes(), 9)).decode()
    return f"amount:{'x'.join(map(str, region.amount.shape))}:{data}"


@REGIONS.register("amount")
def of_amounts(run: "stableflow.editing.run.Run", details: str) -> Region:
    """What `describe` wrote: the amounts themselves."""
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
def of_mask(run: "stableflow.editing.run.Run", details: str) -> Region:
    """A mask file: white is inside, "mask:FILE"; any size of the picture's aspect."""
    return Region.from_mask(details)


@REGIONS.register("box")
def of_box(run: "stableflow.editing.run.Run", details: str) -> Region:
    """A box of the source's pixels from its top left corner: "box:x,y,width,height"."""
    x, y, width, height = _numbers(details, "box:x,y,width,height", 4)
    return Region.box(int(x), int(y), int(width), int(height), _size(run))


@REGIONS.register("polygon")
def of_polygon(run: "stableflow.editing.run.Run", details: str) -> Region:
    """The inside of a polygon of pixels: "polygon:x,y,x,y,x,y"."""
    numbers = _numbers(details, "polygon:x,y,x,y,x,y", None)
    return Region.polygon(list(zip(numbers[::2], numbers[1::2])), _size(run))


@REGIONS.register("points")
def of_points(run: "stableflow.editing.run.Run", details: str) -> Region:
    """Discs of a radius around pixels: "points:RADIUS,x,y,x,y"."""
    radius, *numbers = _numbers(details, "points:RADIUS,x,y", None)
    return Region.points(list(zip(numbers[::2], numbers[1::2])), radius, _size(run))


@REGIONS.register("word")
def of_word(run: "stableflow.editing.run.Run", details: str) -> Region:
    """Where the source's image looks at words of its prompt: "word:dog", "word:red hat". Found by attention."""
    model = run.model
    if not isinstance(model, ShowsAttention):
        raise InterventionError(
            "This model's family cannot show its attention, so a word's region cannot be found. Give a mask or a box."
        )
    wanted = details.lower().split()
    words = model.words(run.source.conditioning.prompts[0])
    texts = [word.text.lower() for word in words]
    missing = [word for word in wanted if word not in texts]
    if missing or not wanted:
        raise unknown_name("word of the source's prompt", missing[0] if missing else details, dict.fromkeys(texts))
    tokens = sorted({token for word in words if word.text.lower() in wanted for token in word.tokens})
    attention = _attention_to_text(run)[:, tokens].sum(-1)
    return _of_tokens(run, attention)


@REGIONS.register("change")
def of_change(run: "stableflow.editing.run.Run", details: str) -> Region:
    """Where the edits' velocity differs from the source's; a region an edit."""
    change = torch.zeros_like(run.rows(run.clean))
    for t in LOOK_AT:
        noisy = run.noised(t)
        both = run.of_both(1.0, None)(torch.cat([noisy, run.rows(noisy)]), t)
        change = change + (both[1:] - both[:1]).abs()
    rows, columns = _grid(run)
    cells = change.mean(1)
    amounts = torch.nn.functional.adaptive_avg_pool2d(cells[:, None], (rows, columns))[:, 0]
    return Region(torch.cat([_of_tokens(run, row.flatten()).amount for row in amounts]))


@REGIONS.register("foreground")
def of_foreground(run: "stableflow.editing.run.Run", details: str) -> Region:
    """What differs from the picture's border: Mahalanobis distance of latents to those of the outermost tokens."""
    rows, columns = _grid(run)
    cells = torch.nn.functional.adaptive_avg_pool2d(run.clean, (rows, columns))[0]
    features = rearrange(cells, "channels y x -> y x channels").double()
    edge = torch.ones(rows, columns, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    border = features[edge]
    spread = torch.cov(border.T) + 1e-3 * torch.eye(border.shape[1], dtype=torch.float64)
    away = features - border.mean(0)
    distance = torch.einsum("y x c, c d, y x d -> y x", away, torch.linalg.inv(spread), away).sqrt()
    return _of_tokens(run, distance.flatten().float())


def _attention_to_text(run: "stableflow.editing.run.Run") -> Float[Tensor, "image_tokens text_tokens"]:
    """Mean attention of the source's image tokens to its text: layers with two streams, all heads, a few times."""
    layers = [layer.index for layer in run.model.layers if layer.kind == "double"] or [0]
    rows, columns = _grid(run)
    made, side = run.source.fingerprint, run.model.pixel_multiple
    points = [(x * side, y * side) for y in range(rows) for x in range(columns)]
    kept = AttentionMean()
    velocity = run.of_source(1.0)
    with run.model.attach(CaptureAttention(layers, points, (made.height, made.width), kept)):
        for t in LOOK_AT:
            velocity(run.noised(t), t)
    assert kept.layout is not None
    return kept.mean().mean((0, 1))[0, :, 0, kept.layout.joint_span("text")]


def _of_tokens(run: "stableflow.editing.run.Run", values: Float[Tensor, " image_tokens"]) -> Region:
    """The tokens above Otsu's threshold, at the source's pixels."""
    rows, columns = _grid(run)
    values = values.float().cpu()
    inside = (values > otsu_threshold(values)).float().reshape(1, rows, columns)
    side = run.model.pixel_multiple
    whole = Region(inside.repeat_interleave(side, 1).repeat_interleave(side, 2))
    return whole.cropped(_size(run))


def _grid(run: "stableflow.editing.run.Run") -> tuple[int, int]:
    made, side = run.source.fingerprint, run.model.pixel_multiple
    return made.height // side, made.width // side


def _size(run: "stableflow.editing.run.Run") -> tuple[int, int]:
    height, width = run.source.images.shape[-2:]
    return height, width


def _numbers(details: str, form: str, count: int | None) -> list[float]:
    try:
        numbers: Sequence[Any] = [float(part) for part in details.split(",")]
    except ValueError:
        numbers = []
    if not numbers or (count is not None and len(numbers) != count):
        raise InputError(f"A region is described as {form} in pixels, got {short(details)}.")
    return list(numbers)
