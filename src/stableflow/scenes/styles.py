"""How a finished drawing is rendered: flat as it is, as a coloured sketch, or like a watercolour."""

import random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from stableflow.scenes.world import Scene

PAPER = (250, 247, 238)


def apply_style(image: Image.Image, scene: Scene) -> Image.Image:
    """Return the picture in the scene's style; all lengths are shares of its side."""
    if scene.style == "sketch":
        return _sketch(image)
    if scene.style == "watercolour":
        return _watercolour(image, random.Random(f"{scene.seed} paper"))
    return image


def _sketch(image: Image.Image) -> Image.Image:
    """Dark outlines over colours that are mostly paper."""
    width = image.width / 256  # of a line
    edges = image.filter(ImageFilter.GaussianBlur(0.8 * width)).convert("L").filter(ImageFilter.FIND_EDGES)
    ink = edges.point([max(0, min(175, (value - 3) * 8)) for value in range(256)])
    lines = ImageOps.invert(ink.filter(ImageFilter.GaussianBlur(width)))
    pale = Image.blend(image, Image.new("RGB", image.size, PAPER), 0.62)
    return ImageChops.multiply(pale, lines.convert("RGB"))


def _watercolour(image: Image.Image, rng: random.Random) -> Image.Image:
    """Soft washes with blotches of water, running out into the paper at the borders."""
    side = image.width
    wash = image.filter(ImageFilter.GaussianBlur(side / 85))
    wash = ImageEnhance.Color(wash).enhance(1.25)
    blotches = _noise(rng, 5, side).point([190 + value * 65 // 255 for value in range(256)])
    wash = ImageChops.multiply(wash, blotches.convert("RGB"))
    border = Image.new("L", (side, side), 0)
    inner = side // 32
    border.paste(255, (inner, inner, side - inner, side - inner))
    ragged = ImageChops.add(border.filter(ImageFilter.GaussianBlur(side / 34)), _noise(rng, 9, side), 1, -128)
    mask = ragged.point([max(0, min(255, (value - 40) * 4)) for value in range(256)])
    return Image.composite(wash, Image.new("RGB", image.size, PAPER), mask)


def _noise(rng: random.Random, cells: int, side: int) -> Image.Image:
    """Smooth random values, 0 to 255."""
    coarse = Image.frombytes("L", (cells, cells), bytes(rng.randrange(256) for _ in range(cells**2)))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)
