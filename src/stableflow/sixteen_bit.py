"""Colour pictures of 16 bits a channel, of which Pillow reads the high bytes only and writes none."""

import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from PIL import Image, ImageOps

from stableflow.decoding import open_picture
from stableflow.errors import InputError

NATIVE = {"little": "16L", "big": "16B"}[sys.byteorder]
OTHER = {"16B": "16L", "16L": "16B"}
BITS_PER_SAMPLE, PLANAR_CONFIGURATION = 258, 284  # TIFF tags
LAYOUTS = ("RGB", "RGBA")


def has_sixteen_bit_colours(image: Image.Image) -> bool:
    """Whether Pillow would drop the low bytes of this opened file's colours."""
    tiles = getattr(image, "tile", None) or []
    named = any(";16" in _raw_mode(tile.args) for tile in tiles)
    return not image.mode.startswith("I") and (named or _in_planes(image))


def read_sixteen_bit(path: Path) -> UInt16[np.ndarray, "height width channels"]:
    """Return RGB or RGBA as the file has them, turned as its EXIF orientation says.

    Pillow's decoders are asked twice: for the high bytes, as ever, and by the other byte order's name for the low ones.

    Raises:
        InputError: The channels are stored in an order that cannot be read so, such as one plane after another.
    """
    with open_picture(path) as image:
        raw, planes = {_raw_mode(tile.args) for tile in image.tile}, _in_planes(image)
    if raw == {"LA;16B"}:  # 4 bytes a pixel, read as if they were 4 channels
        grey_high, grey_low, alpha_high, alpha_low = _decode(path, lambda _: "RGBA").transpose(2, 0, 1)
        grey, alpha = _joined(grey_high, grey_low), _joined(alpha_high, alpha_low)
        return np.stack([grey, grey, grey, alpha], axis=-1)
    if planes or len(raw) != 1 or not {mode.partition(";")[0] for mode in raw} <= set(LAYOUTS):
        raise InputError(
            f"{path} has 16 bits a channel in a layout ({', '.join(sorted(raw))}) of which only 8 can be read. Save it "
            "as PNG, or as TIFF with its channels side by side and opacity, if any, not premultiplied."
        )
    return _joined(_decode(path, lambda mode: mode), _decode(path, _other_order))


def write_sixteen_bit_png(
    path: Path,
    pixels: UInt16[np.ndarray, "height width channels"],
    *,
    profile: bytes | None = None,
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Write RGB or RGBA as a PNG, with a colour profile and further chunks (name, data).

    Source: W3C, "Portable Network Graphics (PNG) Specification", third edition; every row is stored as its difference
    from the one above (filter 2).
    """
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    changes = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # modulo 256, as the filter has it
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), changes], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    colours = [] if profile is None else [(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        body = (b"IDAT", zlib.compress(filtered.tobytes()))
        for name, data in [(b"IHDR", header), *colours, *chunks, body, (b"IEND", b"")]:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


def _decode(path: Path, order: Callable[[str], str]) -> np.ndarray:
    with open_picture(path) as image:
        image.tile = [tile._replace(args=_with_raw_mode(tile.args, order(_raw_mode(tile.args)))) for tile in image.tile]
        return np.array(ImageOps.exif_transpose(image))


def _in_planes(image: Image.Image) -> bool:
    """Whether this is a TIFF of 16 bits with one channel after another, which Pillow takes for 8 bits."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(PLANAR_CONFIGURATION) == 2 and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8


def _raw_mode(args: object) -> str:
    """The codec's name of the channels and bytes in the file; PNG's tiles have it alone, TIFF's in front."""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _with_raw_mode(args: object, raw_mode: str) -> object:
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode


def _other_order(raw_mode: str) -> str:
    layout, order = raw_mode.split(";")
    return f"{layout};{OTHER[NATIVE if order == '16N' else order]}"


def _joined(high: np.ndarray, low: np.ndarray) -> UInt16[np.ndarray, "..."]:
    return high.astype(np.uint16) << 8 | low
