"""Edits put back into the file they came from: its resolution, its bit depth, and all outside to the last bit."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from stableflow.decoding import open_picture
from stableflow.errors import ImageError, InputError
from stableflow.files import replacing
from stableflow.images import png_text, resize_pixels, save_png, to_pil
from stableflow.region import Region
from stableflow.sixteen_bit import has_sixteen_bit_colours, read_sixteen_bit, write_sixteen_bit_png


@dataclass(frozen=True, eq=False)
class FilePicture:
    """A picture in the numbers of its file, grey and palettes written out as RGB, turned as EXIF says.

    Args:
        colours: 8 or 16 bits a channel, in the file's own colour space.
        alpha: Opacity in as many bits, if the file has any.
        profile: The ICC profile of the colours; sRGB without one.
    """

    colours: UInt[np.ndarray, "height width 3"]
    alpha: UInt[np.ndarray, "height width"] | None = None
    profile: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.colours.shape[0], self.colours.shape[1]

    @property
    def top(self) -> int:
        """The number that is white: 255 or 65535."""
        return int(np.iinfo(self.colours.dtype).max)

    def save(self, path: str | Path, *, text: Mapping[str, str] | None = None) -> None:
        """Write a PNG of the same bit depth, profile included, whole or not at all; see `images.save_png` for text."""
        if self.top == 255:
            save_png(path, self.to_pil(), text=text)
            return
        chunks = [(name, data) for name, data, *_ in png_text(text or {}).chunks]
        with replacing(path) as temporary:
            write_sixteen_bit_png(temporary, self._channels(), profile=self.profile, chunks=chunks)

    def to_pil(self) -> Image.Image:
        """Return a PIL image of 8 bits a channel, in the file's colour space: for showing, where there are 16."""
        channels = self._channels()
        image = Image.fromarray(channels if self.top == 255 else (channels >> 8).astype(np.uint8))
        if self.profile is not None:
            image.info["icc_profile"] = self.profile
        return image

    def _channels(self) -> np.ndarray:
        return self.colours if self.alpha is None else np.dstack([self.colours, self.alpha])


def read_file_picture(image: str | Path | Image.Image) -> FilePicture:
    """Read a picture without changing one of its numbers.

    Args:
        image: A file, PNG, JPEG, TIFF or another that Pillow reads; grey, palette or RGB, with or without opacity, of
            up to 16 bits a channel. Or a PIL image, in the bits that it has.

    Raises:
        ImageError: The file cannot be read.
        InputError: It is CMYK, float or otherwise of a kind that a PNG cannot hold.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, "the picture")
    path = Path(image).expanduser()
    try:
        with open_picture(path) as opened:
            if not has_sixteen_bit_colours(opened):
                return _from_pil(opened, str(path))
            profile, key = _profile(opened, str(path)), opened.info.get("transparency")
        return _file_picture(read_sixteen_bit(path), key, profile)
    except (ImageError, InputError):
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} is damaged or cut off: {error}. Export it again.") from error


def put_back(
    given: FilePicture,
    edited: Float[Tensor, "3 height width"],
    region: Region,
    *,
    content_size: tuple[int, int] | None = None,
    source: Float[Tensor, "3 height width"] | None = None,
) -> FilePicture:
    """Put an edit back into its picture: given + amount (edit - given), at the picture's resolution and bit depth.

    The edit and the region are enlarged to the picture's size. Where the enlarged amount is 0, colours are the given
    ones to the last bit; opacity is everywhere.

    Args:
        edited: sRGB colours in [0, 1], as decoded from the model, with or without padding.
        region: Of one row, feathered already, at the same pixels.
        content_size: (height, width) of the picture at work, without padding; that of `edited` when None.
        source: The source as the model decodes it. If given, what is added is the enlarged difference between edit
            and source, so detail that the edit leaves alone keeps the picture's resolution also inside.

    Raises:
        InputError: Edit and region are smaller than `content_size`, or the region has several rows.
    """
    content = content_size or (edited.shape[1], edited.shape[2])
    if len(region) != 1 or min(edited.shape[1] - content[0], edited.shape[2] - content[1]) < 0:
        raise InputError(
            f"An edit is put back by a region of one row and is of the content's size or padded, got {region!r}, an "
            f"edit of {tuple(edited.shape)} and content of {content} (height, width). Region.row takes one row."
        )
    amount = rearrange(region.cropped(content).resized(given.size).amount, "1 y x -> y x 1").numpy()
    change = _in_colours_of(given, edited, content) - (
        given.colours if source is None else _in_colours_of(given, source, content)
    )
    mixed = np.clip(given.colours + amount * change, 0, given.top).round().astype(given.colours.dtype)
    return FilePicture(np.where(amount == 0, given.colours, mixed), given.alpha, given.profile)


def _in_colours_of(
    given: FilePicture, pixels: Float[Tensor, "3 height width"], content: tuple[int, int]
) -> Float[np.ndarray, "given_height given_width 3"]:
    """Return sRGB pixels at the given picture's size and in its numbers; by way of 8 bits if it has a profile."""
    pixels = resize_pixels(pixels[:, : content[0], : content[1]].detach().float().cpu(), given.size)
    if given.profile is not None:
        own = ImageCms.ImageCmsProfile(BytesIO(given.profile))
        image = ImageCms.profileToProfile(to_pil(pixels), ImageCms.createProfile("sRGB"), own, outputMode="RGB")
        return np.array(image, np.float32) / 255 * given.top
    return rearrange(pixels, "channels y x -> y x channels").numpy() * np.float32(given.top)


def _from_pil(image: Image.Image, name: str) -> FilePicture:
    profile, key = _profile(image, name), image.info.get("transparency")
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.array(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(f"{name} holds {grey.min()} to {grey.max()}, which 16 bits do not hold; convert it first.")
        return _file_picture(np.stack([grey.astype(np.uint16)] * 3, axis=-1), key, profile)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise InputError(
            f"{name} is of mode {image.mode}, which a PNG cannot hold to the last bit. Convert it to RGB or grey first."
        )
    opacity = key is not None or image.mode in ("LA", "PA", "RGBA")
    return _file_picture(np.array(image.convert("RGBA" if opacity else "RGB")), None, profile)


def _file_picture(channels: np.ndarray, key: object, profile: bytes | None) -> FilePicture:
    """Take opacity apart; of 16-bit pictures it may also be a colour that is transparent."""
    colours, alpha = channels[..., :3], channels[..., 3] if channels.shape[-1] == 4 else None
    if key is not None:
        shown = (colours != np.array(key)).any(-1)
        alpha = np.where(shown, np.iinfo(colours.dtype).max, 0).astype(colours.dtype)
    return FilePicture(colours, alpha, profile)


def _profile(image: Image.Image, name: str) -> bytes | None:
    """Return the ICC profile, or None where colours count as sRGB, also because it cannot be used, as in `images`."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        profile: Any = ImageCms.ImageCmsProfile(BytesIO(data)).profile
        space = profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError):
        return None
    if space != "RGB":
        raise InputError(
            f"{name} has a colour profile for {space}, which RGB does not go with; convert it to RGB first."
        )
    return data
