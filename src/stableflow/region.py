"""Where an edit may act: one mask, seen at pixels, latents and tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from stableflow.checks import LONGEST_SIDE, check_choice, check_count, check_pair
from stableflow.decoding import MAX_PIXELS
from stableflow.errors import InputError
from stableflow.images import PictureLike, load_image
from stableflow.masks import MaskLike, draw_box, draw_discs, draw_polygon, read_mask, show_mask
from stableflow.reading import short
from stableflow.types import Images

Size = tuple[int, int]
Rule = Literal["mean", "any"]
STEPS = 2**24  # amounts are whole numbers of 1 / STEPS, of which float32 holds every one and its complement


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """Where an edit may act: 1 inside, 0 outside, between on a feathered edge.

    Amounts are rounded to steps of 2**-24, so that ~~region is the region and De Morgan's laws hold to the last bit.
    Regions of one row go with any number of rows. A picture that is padded to a model's multiple has a region that is
    padded alike, by 0: padding lies outside.

    Args:
        amount: At the picture's pixels; one row, or one an edit. Kept as float32 on the CPU.

    Raises:
        InputError: It is not a float map (rows, height, width) of finite numbers in [0, 1].

    Example:
        >>> region = Region.box(16, 0, 32, 64, size=(64, 64))
        >>> region.share(), region.feather(4).tokens((4, 4)).shape
        (0.5, torch.Size([1, 16, 1]))
    """

    amount: Float[Tensor, "rows height width"]

    def __post_init__(self) -> None:
        given = self.amount
        if not isinstance(given, Tensor):
            raise InputError(f"amount must be a tensor (rows, height, width), got {short(given)}; see from_mask.")
        if given.ndim != 3 or 0 in given.shape or not given.is_floating_point():
            raise InputError(
                f"A region's amount is float (rows, height, width), got {given.dtype} {tuple(given.shape)}. "
                "Region.from_mask reads masks of other types."
            )
        low, high = float(given.min()), float(given.max())  # NaN if there is one
        if not (low >= 0 and high <= 1):
            raise InputError(f"A region's amount lies in [0, 1], got {low:g} to {high:g}; scale or clamp it.")
        steps = (given.detach().double().cpu() * STEPS).round()
        object.__setattr__(self, "amount", (steps / STEPS).float())

    @staticmethod
    def everywhere(size: Size) -> "Region":
        """Return the region that is the whole picture of (height, width) pixels."""
        return Region(torch.ones(1, *_checked_size(size)))

    @staticmethod
    def nowhere(size: Size) -> "Region":
        """Return the region that holds nothing of a picture of (height, width) pixels."""
        return Region(torch.zeros(1, *_checked_size(size)))

    @staticmethod
    def box(x: int, y: int, width: int, height: int, size: Size) -> "Region":
        """Return a box of width x height pixels whose top left pixel is (x, y), in a picture of (height, width)."""
        return Region(draw_box(x, y, width, height, _checked_size(size)))

    @staticmethod
    def polygon(points: Sequence[tuple[float, float]], size: Size) -> "Region":
        """Return the inside of a polygon of pixels (x, y), its outline included; what leaves the picture is cut off."""
        return Region(draw_polygon(points, _checked_size(size)))

    @staticmethod
    def points(points: Sequence[tuple[float, float]], radius: float, size: Size) -> "Region":
        """Return discs around pixels (x, y) of a picture of (height, width); radius in pixels."""
        return Region(draw_discs(points, radius, _checked_size(size)))

    @staticmethod
    def from_mask(mask: MaskLike) -> "Region":
        """Return the region that a mask shows; see `read_mask` for what may be given and what is refused."""
        return Region(read_mask(mask))

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.amount.shape[1], self.amount.shape[2]

    @property
    def is_hard(self) -> bool:
        """Whether every amount is 0 or 1."""
        return bool(((self.amount == 0) | (self.amount == 1)).all())

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.amount.shape[0]

    def row(self, index: int) -> "Region":
        """Return the region of one edit; a region of one row is that of every edit."""
        return Region(self.amount[None, 0 if len(self) == 1 else check_count("index", index, 0, len(self) - 1)])

    def __invert__(self) -> "Region":
        return Region(1 - self.amount)

    def __and__(self, other: "Region") -> "Region":
        return Region(torch.minimum(*_matched(self, other)))

    def __or__(self, other: "Region") -> "Region":
        return Region(torch.maximum(*_matched(self, other)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and torch.equal(self.amount, other.amount)

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        height, width = self.size
        return f"Region({width}x{height} pixels, {len(self)} row(s), {self.share():.1%} inside)"

    def feather(self, pixels: int) -> "Region":
        """Return the region with a soft edge: a blur that reaches `pixels` to both sides, and no further.

        Deeper inside than that it stays exactly 1, further away exactly 0. Feather before padding, so that a region
        which reaches the border of the picture stays whole there.
        """
        _check_pixels("feather", pixels)
        amount, side = F.pad(self.amount[:, None].double() * STEPS, [pixels] * 4, mode="replicate"), pixels + 1
        for window in ((1, side), (1, side), (side, 1), (side, 1)):  # sums of whole numbers: exact up to 150 pixels
            amount = F.avg_pool2d(amount, window, stride=1, divisor_override=1)
        return Region(amount[:, 0] / (STEPS * side**4))

    def grow(self, pixels: int) -> "Region":
        """Return the region grown by so many pixels in every direction, square; a negative number shrinks it.

        The border of the picture is no edge: a region that reaches it is not shrunk there.
        """
        if check_count("pixels of grow", pixels, -LONGEST_SIDE, LONGEST_SIDE) < 0:
            return ~((~self).grow(-pixels))
        _check_pixels("grow", pixels)
        wide = F.max_pool2d(self.amount, (1, 2 * pixels + 1), stride=1, padding=(0, pixels))
        return Region(F.max_pool2d(wide, (2 * pixels + 1, 1), stride=1, padding=(pixels, 0)))

    def moved(self, dx: int, dy: int) -> "Region":
        """Return the region moved dx pixels to the right and dy down; what leaves the picture is lost."""
        height, width = self.size
        dx, dy = check_count("dx", dx, -LONGEST_SIDE, LONGEST_SIDE), check_count("dy", dy, -LONGEST_SIDE, LONGEST_SIDE)
        moved = torch.zeros_like(self.amount)
        to_y, to_x = slice(max(0, dy), max(0, height + dy)), slice(max(0, dx), max(0, width + dx))
        from_y, from_x = slice(max(0, -dy), max(0, height - dy)), slice(max(0, -dx), max(0, width - dx))
        moved[:, to_y, to_x] = self.amount[:, from_y, from_x]
        return Region(moved)

    def resized(self, size: Size) -> "Region":
        """Return the region at another (height, width): the mean where it shrinks, linear between where it grows."""
        if _checked_size(size) == self.size:
            return self
        amount = F.interpolate(self.amount[:, None].double(), size=size, mode="bilinear", antialias=True)
        return Region(amount[:, 0].clamp(0, 1))

    def padded(self, size: Size) -> "Region":
        """Return the region in a larger (height, width), at its top left; what is added lies outside."""
        (height, width), (own_height, own_width) = _checked_size(size), self.size
        if height < own_height or width < own_width:
            raise InputError(f"{self!r} cannot be padded to {width}x{height}; cut or resize it.")
        return Region(F.pad(self.amount, (0, width - own_width, 0, height - own_height)))

    def cropped(self, size: Size) -> "Region":
        """Return the top left (height, width) of the region: what `padded` had been given."""
        (height, width), (own_height, own_width) = _checked_size(size), self.size
        if height > own_height or width > own_width:
            raise InputError(f"{self!r} cannot be cut to {width}x{height}; pad or resize it.")
        return Region(self.amount[:, :height, :width])

    def fitted(self, content_size: Size, padded_size: Size | None = None) -> "Region":
        """Return the region at the size that a model works at: resized as its picture was, then padded alike.

        Args:
            content_size: (height, width) of the picture at work, `Prepared.content_size`.
            padded_size: The same with padding; none when None.

        Raises:
            InputError: The region has another aspect than the picture.
        """
        height, width = _checked_size(content_size)
        own_height, own_width = self.size
        if abs(own_height * width / own_width - height) > 1 and abs(own_width * height / own_height - width) > 1:
            raise InputError(
                f"{self!r} has another aspect than the picture of {width}x{height} pixels, so it does not show where "
                "in it. Make the mask over the same picture, at any size."
            )
        resized = self.resized(content_size)
        return resized if padded_size is None else resized.padded(padded_size)

    def tokens(self, grid: Size, rule: Rule = "mean") -> Float[Tensor, "rows image_tokens 1"]:
        """Return the amount for each image token, row by row, over the pixels that it stands for.

        Args:
            grid: Rows and columns of tokens; they must divide the padded size.
            rule: "mean" of the amounts, or "any": the largest, so that what is inside anywhere takes whole tokens.
        """
        return rearrange(self._cells(grid, rule, "tokens"), "rows y x -> rows (y x) 1")

    def latents(self, size: Size, rule: Rule = "mean") -> Float[Tensor, "rows 1 latent_height latent_width"]:
        """Return the amount for each latent pixel, by the same rules as `tokens`."""
        return self._cells(size, rule, "latent pixels")[:, None]

    def whole(self, side: int) -> "Region":
        """Return the region grown to whole squares of side x side pixels: a model's tokens, its `pixel_multiple`."""
        height, width = self.size
        check_count("side", side)
        amount = self._cells((height // max(side, 1), width // max(side, 1)), "any", f"squares of {side} pixels")
        return Region(amount.repeat_interleave(side, 1).repeat_interleave(side, 2))

    def _cells(self, grid: Size, rule: Rule, what: str) -> Float[Tensor, "rows y x"]:
        (height, width), (y, x) = self.size, check_pair("size in " + what, grid, "(rows, columns)")
        check_choice("rule", rule, ["mean", "any"])
        y, x = check_count("rows", y, 0), check_count("columns", x, 0)
        if min(y, x) < 1 or height % y or width % x:
            raise InputError(
                f"{self!r} does not divide into {y} x {x} {what} (rows x columns). Bring it to the size that the model "
                "works at, padding included, with Region.fitted."
            )
        how = {"mean": "mean", "any": "max"}[rule]
        return reduce(self.amount.double(), "rows (y h) (x w) -> rows y x", how, y=y, x=x).float()

    def composite(
        self, given: Float[Tensor, "#edits 3 height width"], edited: Float[Tensor, "edits 3 height width"]
    ) -> Images:
        """Return the edited pictures inside and the given one outside: where the amount is 0, bit for bit.

        Args:
            given: One row, or one an edit.
            edited: A row each; of the same size in pixels as the region.
        """
        if not self.size == tuple(given.shape[-2:]) == tuple(edited.shape[-2:]):
            raise InputError(
                f"{self!r} goes with pictures of its own size, got {tuple(given.shape)} and {tuple(edited.shape)}. "
                "Cut padding off with Region.cropped."
            )
        amount = self.amount[:, None].to(given)
        mixed = torch.lerp(*torch.broadcast_tensors(given, edited.to(given), amount))
        return torch.where(amount == 0, given, torch.where(amount == 1, edited.to(given), mixed))

    def bounds(self) -> tuple[int, int, int, int] | None:
        """Return x, y, width, height of the smallest box around all that is not 0 in any row; None if nothing is."""
        inside = (self.amount > 0).any(0)
        ys, xs = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        return (xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1) if xs else None

    def share(self) -> float:
        """Return the mean amount: the fraction of the picture that lies inside."""
        return float(self.amount.double().mean())

    def digest(self) -> str:
        """Return a short digest of shape and amounts, for recipes."""
        shape = "x".join(map(str, self.amount.shape))
        return hashlib.sha256(shape.encode() + self.amount.contiguous().numpy().tobytes()).hexdigest()[:16]

    def overlay(self, image: PictureLike) -> Image.Image:
        """Return the picture with the region tinted and outlined, for a person to check; rows are joined."""
        pixels = load_image(image).pixels
        height, width = pixels.shape[1:]
        amount = self.cropped((height, width)).amount.amax(0, keepdim=True)
        inside = Region((amount >= 0.5).float())
        return show_mask(pixels, amount, outline=(inside.grow(1) & ~inside).amount)


def _matched(a: Region, b: Region) -> tuple[Tensor, Tensor]:
    rows = max(len(a), len(b))
    if a.size != b.size or {len(a), len(b)} - {1, rows}:
        raise InputError(f"{a!r} and {b!r} do not go together: regions need one size, and as many rows or one.")
    return a.amount.expand(rows, -1, -1), b.amount.expand(rows, -1, -1)


def _checked_size(size: Size) -> Size:
    height, width = check_pair("size", size)
    height, width = check_count("height of size", height), check_count("width of size", width)
    if height * width > MAX_PIXELS:
        raise InputError(f"size {height}x{width} is more than {MAX_PIXELS / 1e6:.0f} megapixels.")
    return height, width


def _check_pixels(what: str, pixels: int) -> None:
    check_count(f"pixels of {what}", pixels, 0, LONGEST_SIDE)
