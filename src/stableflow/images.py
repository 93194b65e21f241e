"""The one way pictures come in and go out. Images are float in [0, 1]."""

import json
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageCms, ImageDraw, ImageFile, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from stableflow.errors import ImageError, InputError
from stableflow.files import replacing

MAX_PIXELS = 40_000_000
MIN_SIDE = 16
RECIPE_KEY = "stableflow"
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

    Files may be JPEG, PNG, WebP or anything else Pillow reads, in any mode: EXIF orientation is applied, 16-bit scaled,
    CMYK and embedded profiles converted to sRGB, opacity kept aside, and what is fully transparent shown as white. Of
    an animation the first frame is taken.

    Args:
        image: A file, a PIL image, or a tensor (3, height, width) in [0, 1].
        max_pixels: Refuse larger files before decoding them.

    Raises:
        ImageError: Missing, empty, damaged, no picture, too large or too small; says which.
    """
    if isinstance(image, Tensor):
        picture = Picture(_checked_tensor(image), None)
    elif isinstance(image, Image.Image):
        picture = _from_pil(image)
    else:
        picture = _from_file(Path(image).expanduser(), max_pixels)
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
    if height is not None and width is not None:
        if height < 1 or width < 1:
            raise InputError(f"height and width must be positive, got {height}x{width}.")
        size = height, width
    else:
        shrink = min(1.0, (max_side or max(own_height, own_width)) / max(own_height, own_width))
        size = max(1, round(own_height * shrink)), max(1, round(own_width * shrink))
    pixels = resize_pixels(picture.pixels, size)
    alpha = None if picture.alpha is None else resize_pixels(picture.alpha[None], size)[0]
    padding = (0, -size[1] % multiple, 0, -size[0] % multiple)
    return Prepared(F.pad(pixels[None], padding, mode="replicate"), alpha, size)


def to_pil(pixels: Float[Tensor, "3 height width"], alpha: Tensor | None = None) -> Image.Image:
    """Return a PIL image of 8 bits a channel; opacity is put back if given."""
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
    with open_image(Path(path)) as image:
        text = image.info.get(RECIPE_KEY)
    try:
        recipe = json.loads(text) if text else None
    except ValueError:
        recipe = None
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


def _from_file(path: Path, max_pixels: int) -> Picture:
    try:
        with open_image(path, max_pixels) as image:
            return _from_pil(image)
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} is damaged or cut off: {error}. Export it again.") from error


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Open a file and check its header; nothing is decoded yet.

    Raises:
        ImageError: Missing, empty, no picture or too large.
    """
    if not path.exists():
        raise ImageError(f"There is no file {path}. Check the path.")
    if path.is_dir():
        raise ImageError(f"{path} is a folder; pass one picture file.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not a picture that can be read; use JPEG, PNG or WebP.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is far larger than the limit of {max_pixels / 1e6:.0f} megapixels.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path} is {width}x{height}, {width * height / 1e6:.0f} megapixels; the limit is {max_pixels / 1e6:.0f}. "
            "Reduce it first."
        )
    return image


def _from_pil(image: Image.Image) -> Picture:
    image = ImageOps.exif_transpose(image)
    image.load()
    if image.mode.startswith(("I", "F")):
        return Picture(_grey_pixels(image), None)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = _to_tensor(image.getchannel("A"))[0]
    pixels = _to_tensor(_to_srgb(image))
    if alpha is None or bool((alpha == 1).all()):
        return Picture(pixels, None)
    return Picture(torch.where(alpha > 0, pixels, torch.ones_like(pixels)), alpha)


def _grey_pixels(image: Image.Image) -> Tensor:
    """16-bit and 32-bit integers and floats, which Pillow's own conversion would saturate."""
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        top = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
    else:
        top = 65535.0
    grey = torch.from_numpy(np.clip(values / top, 0, 1))
    return grey.expand(3, -1, -1).clone()


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L", "RGBA"):
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            base = image.convert("RGB") if image.mode == "RGBA" else image
            converted = ImageCms.profileToProfile(base, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return converted if converted is not None else base.convert("RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # an unusable profile: take the colours as sRGB, as browsers do
    return image.convert("RGB")


def _to_tensor(image: Image.Image) -> Tensor:
    data = np.array(image, dtype=np.float32) / 255
    return torch.from_numpy(data[None] if data.ndim == 2 else np.ascontiguousarray(data.transpose(2, 0, 1)))


def _checked_tensor(pixels: Tensor) -> Tensor:
    if pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.is_floating_point():
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
