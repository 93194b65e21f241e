"""Masks as people give, draw and look at them; files and arrays in the few forms that mean one thing only."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from stableflow.decoding import open_picture
from stableflow.errors import InputError
from stableflow.images import to_pil

MaskLike = str | Path | Image.Image | np.ndarray | Tensor
TINT = (255, 0, 102)
FULL = {"uint8": 255, "uint16": 65535}


def read_mask(mask: MaskLike) -> Float[Tensor, "rows height width"]:
    """Return a mask's amounts in [0, 1], white being inside.

    Args:
        mask: A file or PIL image: grey of 1, 8 or 16 bits, also when saved as a colour picture; of a picture with
            opacity, unless it is opaque everywhere, the opacity alone counts. Or an array or tensor (height, width) or
            (rows, height, width): bool, 8 or 16 bits unsigned, or floats in [0, 1].

    Raises:
        ImageError: The file cannot be read.
        InputError: It is in colours, of another type or shape, or out of range.
    """
    if isinstance(mask, str | Path):
        with open_picture(Path(mask).expanduser()) as image:
            return _from_array(_grey(image, str(mask)), str(mask))
    if isinstance(mask, Image.Image):
        return _from_array(_grey(mask, "the picture"), "the picture")
    if isinstance(mask, Tensor):
        mask = (mask.float() if mask.dtype == torch.bfloat16 else mask).detach().cpu().numpy()
    return _from_array(mask, f"the {mask.dtype} array")


def draw_polygon(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> Float[Tensor, "1 height width"]:
    """Return the inside and outline of a polygon of pixels (x, y), in a picture of (height, width).

    Raises:
        InputError: It has fewer than three corners, or holds no pixel of the picture.
    """
    height, width = size
    if len(points) < 3:
        raise InputError(f"A polygon has three points (x, y) or more, got {list(points)}.")
    canvas = Image.new("L", (width, height), 0)
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=255, outline=255)
    if canvas.getbbox() is None:
        raise InputError(f"The polygon {list(points)} holds no pixel of the picture of {width}x{height} pixels.")
    return read_mask(canvas)


def draw_discs(
    points: Sequence[tuple[float, float]], radius: float, size: tuple[int, int]
) -> Float[Tensor, "1 height width"]:
    """Return discs of a radius in pixels around pixels (x, y), in a picture of (height, width).

    Raises:
        InputError: There is no point, one lies outside the picture, or the radius is negative.
    """
    height, width = size
    outside = [(x, y) for x, y in points if not (0 <= x < width and 0 <= y < height)]
    if outside or not points or not radius >= 0:
        raise InputError(
            f"points must be pixels (x, y) with 0 <= x < {width} and 0 <= y < {height}, at least one, and radius 0 or "
            f"more; got {outside or list(points)} and {radius}."
        )
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = torch.zeros(height, width, dtype=torch.bool)
    for x, y in points:
        inside |= (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return inside[None].float()


def show_mask(
    pixels: Float[Tensor, "3 height width"],
    amount: Float[Tensor, "1 height width"],
    outline: Float[Tensor, "1 height width"],
) -> Image.Image:
    """Return the picture tinted by a mask's amounts, with an outline of full tint."""
    tint = torch.tensor(TINT)[:, None, None] / 255
    tinted = torch.lerp(pixels, tint.expand_as(pixels), 0.4 * amount.expand_as(pixels))
    return to_pil(torch.where(outline > 0, tint, tinted))


def _grey(image: Image.Image, name: str) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.array(image)
    if image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16)
    if image.mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA"):
        raise InputError(f"mask: {name} is of mode {image.mode}; save it as grey of 8 or 16 bits, white inside.")
    pixels = np.array(image.convert("RGBA"))
    if pixels[..., 3].min() < 255:
        return pixels[..., 3]
    if (pixels[..., :1] != pixels[..., :3]).any():
        raise InputError(
            f"mask: {name} is in colours and opaque, so what is inside is not clear; save it as grey, white inside, or "
            "with what is outside transparent."
        )
    return pixels[..., 0]


def _from_array(values: np.ndarray, name: str) -> Float[Tensor, "rows height width"]:
    if values.ndim not in (2, 3) or values.size == 0:
        raise InputError(f"mask: {name} has shape {values.shape}; give (height, width) or (rows, height, width).")
    kind = values.dtype.name
    if kind in FULL:
        if values.max() == 1:
            raise InputError(
                f"mask: {name} holds 0 and 1 only, where {FULL[kind]} is fully inside; give booleans or floats."
            )
        values = values.astype(np.float64) / FULL[kind]
    elif kind != "bool" and values.dtype.kind != "f":
        raise InputError(f"mask: {name} is none of bool, uint8, uint16 and floats in [0, 1]; convert it.")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN is refused too
        raise InputError(f"mask: {name} holds {low:g} to {high:g}; floats lie in [0, 1], 1 being inside.")
    amount = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    return amount if amount.ndim == 3 else amount[None]
