"""Drawing in units of the picture, so that a scene looks alike at every size."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

Colour = tuple[float, float, float]  # 0..255
Point = tuple[float, float]


def mix(a: Colour, b: Colour, amount: float) -> Colour:
    """Return a + amount (b - a)."""
    return tuple(x + amount * (y - x) for x, y in zip(a, b))  # pyright: ignore[reportReturnType]: three in, three out


def _paint(colour: Colour) -> tuple[int, int, int]:
    return tuple(int(min(255, max(0, round(x)))) for x in colour)  # pyright: ignore[reportReturnType]: three in, three out


class Canvas:
    """A square picture; x to the right and y down, both from 0 to 1."""

    def __init__(self, pixels: int):
        self.image = Image.new("RGB", (pixels, pixels))
        self._draw = ImageDraw.Draw(self.image)
        self._size = pixels

    def _to_pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._size, y * self._size) for x, y in points]

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self._draw.ellipse(self._to_pixels([(x - rx, y - ry), (x + rx, y + ry)]), fill=_paint(colour))

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._draw.rectangle(self._to_pixels([(left, top), (right, bottom)]), fill=_paint(colour))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon(self._to_pixels(points), fill=_paint(colour))

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """Draw a line with round ends."""
        pixels = max(1, round(width * self._size))
        self._draw.line(self._to_pixels([start, end]), fill=_paint(colour), width=pixels)
        for x, y in (start, end):
            self.ellipse(x, y, width / 2, width / 2, colour)

    def gradient(self, top: float, bottom: float, first: Colour, last: Colour) -> None:
        """Fill the full width between two heights."""
        start, stop = round(top * self._size), round(bottom * self._size)
        for y in range(start, stop):
            colour = _paint(mix(first, last, (y - start) / max(1, stop - start)))
            self._draw.line([(0, y), (self._size, y)], fill=colour)


class Figure:
    """Drawing in a figure's own units: origin at its feet, x forward, y up, 100 units its usual height."""

    def __init__(self, canvas: Canvas, x: float, y: float, scale: float, *, facing: str = "right"):
        self._canvas, self._x, self._y = canvas, x, y
        self._unit = scale / 256
        self._forward = 1 if facing == "right" else -1

    def _at(self, point: Point) -> Point:
        return self._x + self._forward * point[0] * self._unit, self._y - point[1] * self._unit

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self._canvas.ellipse(*self._at((x, y)), rx * self._unit, ry * self._unit, colour)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._canvas.polygon([self._at(point) for point in points], colour)

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        self._canvas.line(self._at(start), self._at(end), width * self._unit, colour)
