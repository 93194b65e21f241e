"""A board in the foreground with a short word on it."""

from stableflow.scenes.canvas import Canvas, Colour, Point
from stableflow.scenes.world import Scene

BOARD: Colour = (250, 246, 232)
FRAME: Colour = (120, 78, 45)
INK: Colour = (25, 25, 30)

# Strokes in a cell of 1 x 1, y down.
LETTERS: dict[str, tuple[tuple[Point, ...], ...]] = {
    "g": (
        ((0.95, 0.2), (0.7, 0), (0.3, 0), (0, 0.3), (0, 0.7), (0.3, 1), (0.7, 1), (0.95, 0.8)),
        ((0.95, 0.8), (0.95, 0.55), (0.55, 0.55)),
    ),
    "o": (((0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3), (0.3, 0)),),
    "h": (((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 0.5), (1, 0.5))),
    "i": (((0.5, 0), (0.5, 1)), ((0.15, 0), (0.85, 0)), ((0.15, 1), (0.85, 1))),
    "u": (((0, 0), (0, 0.7), (0.3, 1), (0.7, 1), (1, 0.7), (1, 0)),),
    "p": (((0, 1), (0, 0), (0.7, 0), (1, 0.15), (1, 0.45), (0.7, 0.6), (0, 0.6)),),
}  # fmt: skip
LETTER_WIDTH, LETTER_HEIGHT, GAP, STROKE = 0.092, 0.122, 0.045, 0.03


def draw_sign(canvas: Canvas, scene: Scene) -> None:
    """Draw the board in front of where a companion stands."""
    if scene.sign == "none":
        return
    x, y = 0.82 if scene.side == "left" else 0.18, 0.875
    canvas.rectangle(x - 0.17, y - 0.112, x + 0.17, y + 0.112, FRAME)
    canvas.rectangle(x - 0.152, y - 0.094, x + 0.152, y + 0.094, BOARD)
    left = x - LETTER_WIDTH - GAP / 2
    for i, letter in enumerate(scene.sign):
        corner = left + i * (LETTER_WIDTH + GAP), y - LETTER_HEIGHT / 2
        for stroke in LETTERS[letter]:
            points = [(corner[0] + u * LETTER_WIDTH, corner[1] + v * LETTER_HEIGHT) for u, v in stroke]
            for start, end in zip(points, points[1:]):
                canvas.line(start, end, STROKE, INK)
