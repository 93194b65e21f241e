"""The one way pictures come in and go out. Images are float in [0, 1]."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from stableflow.checks import check_count, check_path
from stableflow.decoding import MAX_PIXELS, RECIPE_KEY, decode, decode_file, open_picture
from stableflow.errors import ImageError, InputError, LoadError, NumericsError
from stableflow.files import replacing
from stableflow.reading import parse_json, short

MIN_SIDE = 16
PictureLike = str | Path | Image.Image | Tensor


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it was given: sRGB colours and, if it had one, its opacity."""

    pixels: Float[Tensor, "3 height width"]
    alpha: Float[Tensor, "height width"] | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture at a size that a model takes.

    Args:
        pixels: Padded at the right and the bottom by repeating the edge.
        alpha: Opacity of the content.
        content_size: Height and width without the padding: `images[..., :height, :width]` cuts it off.
    """

    pixels: Float[Tensor, "1 3 padded_height padded_width"]
    alpha: Float[Tensor, "height width"] | None
    content_size: tuple[int, int]


def load_image(image: PictureLike, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture.

    Files may be JPEG, PNG, WebP or another raster format that Pillow reads, in any mode: EXIF orientation is applied,
    16-bit scaled, CMYK and embedded profiles converted to sRGB, opacity kept aside, and what is fully transparent shown
    as white. Of an animation the first frame is taken. docs/pictures.md has a table of what happens to what.

    Args:
        image: A file, a PIL image, or a tensor (3, height, width) in [0, 1].
        max_pixels: Refuse larger files before decoding them.

    Raises:
        ImageError: Missing, empty, damaged, no picture, no numbers, too large or too small; says which.
    """
    if isinstance(image, Tensor):
        picture = Picture(_checked_tensor(image), None)
    elif isinstance(image, Image.Image):
        picture = Picture(*_from_pil(image, max_pixels))
    elif isinstance(image, (str, Path)):
        picture = Picture(*decode_file(_file(image), max_pixels))
    else:
        raise ImageError(
            f"A picture is a file, a PIL image or a float tensor (3, height, width) in [0, 1]; this image is "
            f"{short(image)}. Image.fromarray makes a PIL image of an array."
        )
    height, width = picture.pixels.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"The picture is {width}x{height}; each side needs at least {MIN_SIDE} pixels.")
    return picture


def prepare(
    image: PictureLike,
    *,
    multiple: int,
    max_side: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Prepared:
    """Read a picture and bring it to a size that a model takes.

    Args:
        multiple: Sides are padded to multiples of it.
        max_side: Reduce the picture to fit, keeping its aspect; never enlarges.
        height, width: Resize to exactly this instead; both must be given.
    """
    picture = load_image(image)
    own_height, own_width = picture.pixels.shape[-2:]
    if (height is None) != (width is None):
        raise InputError("Give both height and width, or neither to keep the picture's own size.")
    if max_side is not None:
        check_count("max_side", max_side)
    if height is not None and width is not None:
        size = check_count("height", height), check_count("width", width)
        if size[0] * size[1] > MAX_PIXELS:
            raise InputError(f"{size[0]}x{size[1]} (height and width) is more than {MAX_PIXELS / 1e6:.0f} megapixels.")
    else:
        shrink = min(1.0, (max_side or max(own_height, own_width)) / max(own_height, own_width))
        size = max(1, round(own_height * shrink)), max(1, round(own_width * shrink))
    pixels = resize_pixels(picture.pixels, size)
    alpha = None if picture.alpha is None else resize_pixels(picture.alpha[None], size)[0]
    padding = (0, -size[1] % multiple, 0, -size[0] % multiple)
    return Prepared(F.pad(pixels[None], padding, mode="replicate"), alpha, size)


def to_pil(pixels: Float[Tensor, "3 height width"], alpha: Tensor | None = None) -> Image.Image:
    """Return a PIL image of 8 bits a channel; opacity is put back if given.

    Raises:
        NumericsError: NaN or infinity, which would be drawn as some colour.
    """
    if not bool(pixels.isfinite().all()):
        raise NumericsError("The picture to be written holds NaN or infinity. Use float32 or bfloat16, not float16.")
    channels = pixels if alpha is None else torch.cat([pixels, alpha[None].to(pixels)])
    data = rearrange(
        (channels.clamp(0, 1) * 255).round().byte().cpu(), "channels height width -> height width channels"
    )
    return Image.fromarray(np.ascontiguousarray(data.numpy()))


def save_png(path: str | Path, image: Image.Image, *, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG whole or not at all, with text chunks (UTF-8 where Latin-1 does not do)."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=png_text(text or {}))


def png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """Return the chunks that hold text in a PNG; the recipe's is UTF-8 throughout."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        if key == RECIPE_KEY:
            chunks.add_itxt(key, value)
        else:
            chunks.add_text(key, value)
    return chunks


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the recipe that `save_png` put into a PNG.

    Raises:
        ImageError: The file is no picture, or holds no recipe.
    """
    with open_picture(_file(path), MAX_PIXELS) as image:
        text = image.info.get(RECIPE_KEY)
    try:
        recipe = parse_json(str(text), where=f"{path}, its recipe") if text else None
    except LoadError as error:
        raise ImageError(str(error)) from error
    if not isinstance(recipe, dict):
        raise ImageError(
            f"{path} holds no stableflow recipe. Recipes are in the PNGs that `stableflow edit` writes; other programs "
            "drop them when they save a copy."
        )
    return recipe


def comparison_grid(
    images: Sequence[Image.Image], labels: Sequence[str], *, columns: int | None = None, min_side: int = 224
) -> Image.Image:
    """Return pictures side by side, small ones enlarged, each under its label."""
    if not images:
        raise InputError("There are no images to put side by side.")
    font = ImageFont.load_default(size=15)
    width, height = images[0].size
    zoom = max(1, -(-min_side // min(width, height)))
    cell_width, cell_height, gap = width * zoom, height * zoom, 10
    lines = [textwrap.wrap(label, width=max(8, cell_width // 8)) for label in labels]
    columns = columns or len(images)
    headers = [20 * max(map(len, lines[i : i + columns])) + 6 for i in range(0, len(images), columns)]  # one a row
    tops = [gap + sum(headers[:row]) + row * (cell_height + gap) for row in range(len(headers) + 1)]
    sheet = Image.new("RGB", (columns * (cell_width + gap) + gap, tops[-1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, wrapped) in enumerate(zip(images, lines)):
        left, top, header = gap + i % columns * (cell_width + gap), tops[i // columns], headers[i // columns]
        draw.multiline_text((left, top), "\n".join(wrapped), fill="black", font=font, spacing=4)
        enlarged = image.convert("RGB").resize((cell_width, cell_height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top + header))
    return sheet


def _file(path: str | Path) -> Path:
    try:
        return check_path("image", path)
    except InputError as error:
        raise ImageError(str(error)) from error


def _from_pil(image: Image.Image, max_pixels: int) -> tuple[Tensor, Tensor | None]:
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise ImageError(f"The picture is {width}x{height}; up to {max_pixels / 1e6:.0f} megapixels are read.")
    try:
        return decode(image)
    except ImageError as error:
        raise ImageError(f"The PIL image cannot be used: {error}") from error
    except Exception as error:  # a lazy image decodes only now
        raise ImageError(f"The PIL image is damaged, cut off or closed: {error}") from error


def _checked_tensor(pixels: Tensor) -> Tensor:
    plain = pixels.layout == torch.strided and not pixels.is_meta and pixels.numel() > 0
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point() or not plain:
        raise ImageError(f"A picture tensor is float (3, height, width), got {pixels.dtype} {tuple(pixels.shape)}.")
    if not bool(pixels.isfinite().all()) or float(pixels.min()) < 0 or float(pixels.max()) > 1:
        raise ImageError("A picture tensor holds values in [0, 1]; divide 8-bit values by 255.")
    return pixels.detach().float().cpu()


def resize_pixels(
    pixels: Float[Tensor, "channels height width"], size: tuple[int, int]
) -> Float[Tensor, "channels new_height new_width"]:
    """Return pixels at another (height, width), bicubic, in [0, 1]; those of this size unchanged."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    resized = F.interpolate(pixels[None], size=size, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)
