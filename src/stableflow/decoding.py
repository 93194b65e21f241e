"""From a picture file or a PIL image to sRGB numbers and opacity: every mode, depth and profile, or a reason."""

import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from stableflow.errors import ImageError

FORMATS = (
    "PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "DDS", "SGI", "PCX",
)  # fmt: skip
"""Raster formats that Pillow decodes by itself; those that start other programs (EPS, WMF) are not opened."""

OUTSIDE = 0.05  # share of a float picture's values that may lie outside 0..1 and are clipped
LARGEST_TEXT = 2**20  # bytes of a text chunk that matters here, decompressed
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
MAX_PIXELS = 40_000_000
RECIPE_KEY = "stableflow"
TEXTS_READ = (RECIPE_KEY.encode(), b"XML:com.adobe.xmp", b"Raw profile type exif")  # the last two turn pictures
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Decoded = tuple[Float[Tensor, "3 height width"], Float[Tensor, "height width"] | None]


def open_picture(path: Path, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Open a file and check its header; nothing is decoded yet.

    Raises:
        ImageError: Missing, no file, empty, no picture, damaged or too large; names the file.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.init()
            image = Image.open(_without_texts(path), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not a picture that can be read; use JPEG, PNG or WebP.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is far larger than the limit of {max_pixels / 1e6:.0f} megapixels.") from error
    except Exception as error:  # decoders raise what they like on damaged files
        raise ImageError(f"{path} cannot be read: {_reason(error)}.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path} is {width}x{height}, {width * height / 1e6:.0f} megapixels; the limit is {max_pixels / 1e6:.0f}. "
            "Reduce it first."
        )
    return image


def decode_file(path: Path, max_pixels: int) -> Decoded:
    """Return a file's colours and opacity.

    Raises:
        ImageError: What `open_picture` refuses, or pixels that are damaged or no numbers; names the file.
    """
    with open_picture(path, max_pixels) as image:
        try:
            return decode(image)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        except Exception as error:  # decoders raise what they like on damaged files
            raise ImageError(f"{path} is damaged or cut off: {_reason(error)}. Export it again.") from error


def decode(image: Image.Image) -> Decoded:
    """Return a PIL image's colours in sRGB, and its opacity if any of it is not opaque.

    Raises:
        ImageError: Its numbers are none, or of a range that is not known.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        pixels, alpha = _deep_grey(image)
    else:
        base, opacity = _apart(image)
        pixels, alpha = _to_tensor(_to_srgb(base, _profile(image))), opacity
    if alpha is None or bool((alpha == 1).all()):
        return pixels, None
    return torch.where(alpha > 0, pixels, torch.ones_like(pixels)), alpha


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise ImageError(f"There is no file {path}. Check the path.")
        if path.is_dir():
            raise ImageError(f"{path} is a folder; pass one picture file.")
        if not path.is_file():
            raise ImageError(f"{path} is no regular file.")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes).")
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path!s:.200} cannot be read: {_reason(error)}.") from error


def _without_texts(path: Path) -> Any:
    """What Pillow is given: a PNG without the texts that do not matter here, since a long one makes it refuse."""
    with path.open("rb") as file:
        if file.read(8) != PNG_SIGNATURE:
            return path
        kept = BytesIO()
        kept.write(PNG_SIGNATURE)
        while len(head := file.read(8)) == 8:
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            body = file.read(length + 4)
            if name not in TEXT_CHUNKS or _text_matters(name, body[:-4]):
                kept.write(head + body)
            if name == b"IEND":
                break
        kept.seek(0)
        return kept


def _text_matters(name: bytes, body: bytes) -> bool:
    key, _, rest = body.partition(b"\0")
    if key not in TEXTS_READ or len(rest) > LARGEST_TEXT:
        return False
    if name == b"tEXt" or (name == b"iTXt" and rest[:1] == b"\0"):
        return True
    packed = rest[1:] if name == b"zTXt" else rest.split(b"\0", 3)[-1]
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, LARGEST_TEXT)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def _apart(image: Image.Image) -> tuple[Image.Image, Tensor | None]:
    """Colours without opacity, and opacity."""
    transparency = image.info.get("transparency")
    if image.mode == "LA":
        return image.getchannel("L"), _to_tensor(image.getchannel("A"))[0]
    if image.mode in ("RGBA", "PA", "La", "RGBa"):
        image = image.convert("RGBA") if image.mode != "La" else image.convert("LA").convert("RGBA")
        return image.convert("RGB"), _to_tensor(image.getchannel("A"))[0]
    if transparency is None:
        return image, None
    if image.mode in ("RGB", "L", "1"):  # one colour is transparent
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
        return image, _opaque(values, transparency, bits=1 if image.mode == "1" else 8)
    rgba = image.convert("RGBA")
    return rgba.convert("RGB"), _to_tensor(rgba.getchannel("A"))[0]


def _opaque(values: np.ndarray, transparent: Any, bits: int) -> Tensor:
    """0 where a pixel has the transparent colour, else 1."""
    colour = np.atleast_1d(np.asarray(transparent)).astype(np.int64)
    if bits == 1:
        colour = np.where(colour > 0, 255, 0)
    elif bits == 8 and colour.max(initial=0) > 255:
        colour = colour >> 8  # of 16 bits a channel, of which Pillow keeps the upper ones
    same = values == colour if values.ndim == 2 else (values == colour).all(axis=-1)
    return torch.from_numpy(1 - same.astype(np.float32))


def _deep_grey(image: Image.Image) -> Decoded:
    """Grey of 16-bit and 32-bit integers or floats, which Pillow's own conversion would saturate."""
    values = np.asarray(image)
    transparency = image.info.get("transparency")
    alpha = None if transparency is None else _opaque(values, transparency, bits=16)
    grey = _scaled(values.astype(np.float64), image.mode, image.format)
    curve = _tone_curve(_profile(image))
    if curve is not None:
        steps = np.linspace(0, 1, len(curve))
        channels = np.stack([np.interp(grey, steps, curve[:, i]) for i in range(3)])
    else:
        channels = np.stack([grey] * 3)
    return torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32)), alpha


def _scaled(values: np.ndarray, mode: str, form: str | None) -> np.ndarray:
    """Grey values as 0..1."""
    if not np.isfinite(values).all():
        raise ImageError("the picture holds values that are no numbers (NaN or infinity). Replace them before editing.")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if mode == "F":
        return np.clip(values / _white_of_floats(values, low, high), 0, 1)
    if mode.startswith("I;16") or form in ("PNG", "PPM"):
        white = 65535
    elif low < 0 or high > 65535 or 0 < high <= 255:
        raise ImageError(
            f"the picture holds 32-bit integers from {low:.0f} to {high:.0f}, of which nobody says what is "
            "white. Export it with 8 or 16 bits a channel."
        )
    else:
        white = 65535
    return np.clip(values / white, 0, 1)


def _white_of_floats(values: np.ndarray, low: float, high: float) -> float:
    whole = bool((values == np.round(values)).all())
    if low >= 0 and 128 <= high <= 255 and (whole or float(np.median(values)) >= 16):
        return 255.0  # 8-bit numbers in a float file
    if float(((values < 0) | (values > 1)).mean()) <= OUTSIDE and not (whole and high > 1):
        return 1.0
    raise ImageError(
        f"the picture holds floats from {low:.4g} to {high:.4g}; 0 is black and 1 is white here, and at most "
        f"{OUTSIDE:.0%} of its values may lie outside. Scale it, or export it with 8 or 16 bits a channel."
    )


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The embedded profile; None for one that is unusable: colours are then taken as sRGB, as browsers do."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        return ImageCms.ImageCmsProfile(BytesIO(data))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    space = "" if profile is None else str(getattr(profile.profile, "xcolor_space", "")).strip()
    if space == "GRAY" and image.mode == "RGB" and not np.ptp(np.asarray(image), axis=-1).any():
        image = image.getchannel(0)  # Pillow opens 16-bit grey with opacity as RGBA
    grey = image.mode in ("L", "1")
    if profile is not None and ((space == "CMYK") == (image.mode == "CMYK")) and (space != "GRAY" or grey):
        base = image.convert({"CMYK": "CMYK", "GRAY": "L"}.get(space, "RGB"))
        try:
            converted = ImageCms.profileToProfile(base, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _tone_curve(profile: ImageCms.ImageCmsProfile | None) -> np.ndarray | None:
    """What a profile makes of 256 steps of grey, (256, 3) in 0..1; None without one."""
    if profile is None:
        return None
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    shown = np.asarray(_to_srgb(ramp, profile), dtype=np.float64)[0] / 255
    return None if np.array_equal(shown[:, 0] * 255, np.arange(256)) else shown


def _to_tensor(image: Image.Image) -> Tensor:
    data = np.array(image, dtype=np.float32) / 255
    return torch.from_numpy(data[None] if data.ndim == 2 else np.ascontiguousarray(data.transpose(2, 0, 1)))


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
