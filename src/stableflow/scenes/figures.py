"""The subject, its hat, and what stands beside it."""

import dataclasses

from stableflow.scenes.canvas import Canvas, Colour, Figure, Point, mix
from stableflow.scenes.world import Scene

COLOURS: dict[str, Colour] = {
    "red": (214, 48, 49),
    "blue": (52, 101, 214),
    "yellow": (245, 205, 50),
    "green": (38, 160, 76),
    "white": (244, 244, 244),
    "black": (45, 45, 50),
}
WHITE, DARK, ORANGE = (255.0, 255.0, 255.0), (25.0, 25.0, 28.0), (250.0, 160.0, 40.0)
SHADOW = (70.0, 74.0, 70.0)
FEET, FAR_FEET, NEAR_FEET = 0.93, 0.8, 0.985  # height of the ground under the subject
JUMP = 26  # units above the ground
SECOND = 0.62  # scale of the second figure


def subject_place(scene: Scene) -> tuple[float, float, float]:
    """Return where the subject stands, x and the height of its feet, and its scale."""
    return _usual_place(scene) if scene.stands is None else scene.stands


def _usual_place(scene: Scene) -> tuple[float, float, float]:
    larger = 1 - abs(2 * scene.scale - 1)  # the circle [0, 1) without a jump
    if scene.size == "far":
        away, feet, scale = (0.08, 0.25), FAR_FEET, 0.52 + 0.1 * larger
    elif scene.size == "near":
        away, feet, scale = (0.03, 0.0625), NEAR_FEET, 1.42 + 0.1 * larger
    else:
        away, feet, scale = (0.08, 0.1875), FEET, 1.0 + 0.3 * larger
    side, distance = (scene.side, away[0]) if scene.position == "middle" else (scene.position, away[1])
    return 0.5 + (-distance if side == "left" else distance), feet, scale


def draw_subject(canvas: Canvas, scene: Scene) -> None:
    """Draw the animal with its shadow and hat."""
    x, feet, scale = subject_place(scene)
    height = 0.028 if scene.size == "usual" else 0.024 * scale
    if scene.stands is not None:
        height *= scale / _usual_place(scene)[2]
    canvas.ellipse(x, feet, 0.18 * scale, height, SHADOW)
    draw_animal(canvas, scene)


def draw_animal(canvas: Canvas, scene: Scene) -> None:
    """Draw the animal with its hat, without its shadow."""
    x, feet, scale = subject_place(scene)
    lift = JUMP * scale / 256 if scene.pose == "jumping" else 0.0
    figure = Figure(canvas, x, feet - lift, scale, facing=scene.facing)
    head = draw_bird(figure, scene) if scene.subject == "bird" else draw_quadruped(figure, scene)
    if scene.hat != "none":
        draw_hat(figure, head, COLOURS[scene.hat])


def draw_quadruped(figure: Figure, scene: Scene) -> Point:
    """Draw a dog or cat; returns the top of its head."""
    body = COLOURS[scene.colour]
    dark = mix(body, (0, 0, 0), 0.28)
    if scene.pose == "standing":
        for leg, colour in ((-28, body), (-14, dark), (16, dark), (30, body)):
            figure.line((leg, 40), (leg, 6), 13, colour)
        figure.ellipse(0, 48, 42, 22, body)
        draw_coat(figure, scene, (-4, 48), 36, 20)
        hx, hy, tail = 40, 80, ((-38, 54), (-58, 78))
    elif scene.pose == "sitting":
        figure.ellipse(-12, 24, 34, 25, body)
        figure.polygon([(-36, 26), (6, 88), (34, 72), (28, 6)], body)
        figure.line((24, 46), (26, 6), 12, dark)
        figure.line((12, 40), (13, 6), 12, body)
        figure.ellipse(-15, 15, 19, 14, dark)
        draw_coat(figure, scene, (-4, 46), 26, 26)
        hx, hy, tail = 22, 96, ((-40, 14), (-62, 26))
    else:
        figure.line((-28, 42), (-58, 22), 13, dark)
        figure.line((-32, 48), (-62, 36), 13, body)
        figure.line((28, 48), (58, 30), 13, dark)
        figure.line((30, 54), (62, 44), 13, body)
        figure.ellipse(0, 52, 44, 21, body)
        draw_coat(figure, scene, (-4, 52), 38, 19)
        hx, hy, tail = 42, 82, ((-38, 58), (-60, 84))
    draw_head = draw_dog_head if scene.subject == "dog" else draw_cat_head
    return draw_head(figure, scene, hx, hy, tail)


def draw_dog_head(figure: Figure, scene: Scene, hx: float, hy: float, tail: tuple[Point, Point]) -> Point:
    """A long snout, a hanging ear and a thick tail."""
    body = COLOURS[scene.colour]
    dark, light = mix(body, (0, 0, 0), 0.4), mix(body, WHITE, 0.45)
    figure.line(*tail, 11, body)
    figure.ellipse(hx, hy, 24, 22, body)
    figure.ellipse(hx + 25, hy - 7, 20, 12, light)
    figure.ellipse(hx + 42, hy - 3, 7, 6, DARK)
    figure.ellipse(hx - 15, hy - 6, 11, 26, dark)
    figure.ellipse(hx + 8, hy + 7, 6, 6, WHITE)
    figure.ellipse(hx + 9, hy + 7, 3.5, 3.5, DARK)
    return hx - 1, hy + 15


def draw_cat_head(figure: Figure, scene: Scene, hx: float, hy: float, tail: tuple[Point, Point]) -> Point:
    """A round face to the front, pointed ears, whiskers and a thin raised tail."""
    body = COLOURS[scene.colour]
    dark, pink = mix(body, (0, 0, 0), 0.28), (245.0, 140.0, 160.0)
    (x, y), end = tail
    figure.line((x, y), end, 7, dark)
    figure.line(end, (end[0] + 4, end[1] + 34), 7, dark)
    for side in (-1, 1):
        outer = hx + side * 25
        figure.polygon([(outer, hy + 2), (hx + side * 24, hy + 44), (hx + side * 3, hy + 18)], dark)
        figure.polygon([(hx + side * 20, hy + 12), (hx + side * 21, hy + 34), (hx + side * 9, hy + 18)], pink)
    figure.ellipse(hx, hy, 28, 23, body)
    for side in (-1, 1):
        figure.ellipse(hx + side * 11, hy + 4, 6.5, 8, (200, 230, 90))
        figure.ellipse(hx + side * 11, hy + 4, 2.6, 7, DARK)
        for rise in (-5, 3):
            figure.line((hx + side * 12, hy - 9), (hx + side * 38, hy - 9 + rise), 2.2, (235, 235, 235))
    figure.ellipse(hx, hy - 8, 5, 3.6, pink)
    return hx, hy + 17


def draw_bird(figure: Figure, scene: Scene) -> Point:
    """A round body, a beak, two legs, and raised wings when jumping; returns the top of its head."""
    body = COLOURS[scene.colour]
    dark = mix(body, (0, 0, 0), 0.3)
    if scene.pose == "standing":
        for leg in (-6, 12):
            figure.line((leg, 26), (leg, 4), 6, ORANGE)
            figure.line((leg, 4), (leg + 12, 4), 6, ORANGE)
        figure.polygon([(-28, 62), (-74, 56), (-66, 36), (-26, 38)], dark)
        figure.ellipse(0, 52, 40, 32, body)
        figure.ellipse(-10, 52, 24, 16, dark)
        draw_coat(figure, scene, (0, 50), 34, 29)
        hx, hy = 28, 90
    elif scene.pose == "sitting":
        figure.polygon([(-28, 40), (-76, 22), (-66, 6), (-26, 14)], dark)
        figure.ellipse(0, 32, 44, 31, body)
        figure.ellipse(-10, 32, 26, 16, dark)
        draw_coat(figure, scene, (0, 31), 38, 28)
        hx, hy = 28, 72
    else:
        figure.polygon([(-28, 50), (-74, 44), (-68, 26), (-26, 30)], dark)
        for leg in (-10, 6):
            figure.line((leg, 22), (leg - 14, 8), 6, ORANGE)
        figure.ellipse(0, 44, 40, 27, body)
        draw_coat(figure, scene, (0, 43), 34, 24)
        figure.polygon([(-22, 54), (16, 56), (-14, 116), (-52, 108)], dark)
        hx, hy = 32, 72
    figure.polygon([(hx + 14, hy + 11), (hx + 48, hy - 3), (hx + 14, hy - 12)], ORANGE)
    figure.ellipse(hx, hy, 24, 23, body)
    figure.ellipse(hx + 9, hy + 6, 6.5, 6.5, WHITE)
    figure.ellipse(hx + 10, hy + 6, 3.8, 3.8, DARK)
    return hx - 2, hy + 17


def draw_coat(figure: Figure, scene: Scene, centre: Point, rx: float, ry: float) -> None:
    """Stripes or spots on the body, an ellipse; darker than it, or lighter on black."""
    (x, y), body = centre, COLOURS[scene.colour]
    mark = mix(body, WHITE, 0.65) if scene.colour == "black" else mix(body, (30, 15, 0), 0.62)
    if scene.coat == "striped":
        for across in (-0.66, -0.22, 0.22, 0.66):
            half = 0.92 * ry * (1 - across**2) ** 0.5
            figure.line((x + across * rx, y - half + 3), (x + across * rx - 4, y + half - 3), 7.5, mark)
    elif scene.coat == "spotted":
        for across, up in ((-0.68, 0.05), (-0.3, 0.55), (-0.15, -0.45), (0.25, 0.2), (0.55, -0.4), (0.68, 0.42)):
            figure.ellipse(x + across * rx, y + up * ry, 6.5, 6.5, mark)


def draw_hat(figure: Figure, top: Point, colour: Colour) -> None:
    """A top hat on the top of the head, wider than it."""
    x, y = top
    figure.polygon([(x - 24, y), (x - 21, y + 42), (x + 21, y + 42), (x + 24, y)], colour)
    figure.ellipse(x, y, 39, 8, mix(colour, (0, 0, 0), 0.2))
    figure.polygon([(x - 23, y + 7), (x - 22, y + 16), (x + 22, y + 16), (x + 23, y + 7)], WHITE)


def draw_second(canvas: Canvas, scene: Scene) -> None:
    """Draw the small second figure in front, where a companion stands, looking at the subject."""
    if scene.second == "none":
        return
    colour, subject = scene.second.split()
    x, facing = (0.83, "left") if scene.side == "left" else (0.17, "right")
    canvas.ellipse(x, 0.92, 0.18 * SECOND, 0.017, SHADOW)
    plain = {"pose": "standing", "coat": "plain", "hat": "none"}
    alone = dataclasses.replace(scene, subject=subject, colour=colour, **plain)
    figure = Figure(canvas, x, 0.92, SECOND, facing=facing)
    (draw_bird if subject == "bird" else draw_quadruped)(figure, alone)


def draw_companion(canvas: Canvas, scene: Scene) -> None:
    """Draw what stands beside the subject, on the other side of the picture."""
    x = 0.83 if scene.side == "left" else 0.17
    canvas_figure = Figure(canvas, x, 0.86, 1.3)
    if scene.companion == "ball":
        canvas.ellipse(x, 0.86, 0.12, 0.018, SHADOW)
        canvas_figure.ellipse(0, 25, 26, 26, (235, 90, 40))
        canvas_figure.polygon([(-25, 31), (25, 31), (25, 19), (-25, 19)], WHITE)
    elif scene.companion == "tree":
        canvas_figure.polygon([(-9, 0), (-7, 60), (7, 60), (9, 0)], (110, 72, 40))
        for dx, dy, colour in ((-20, 72, (40, 120, 50)), (20, 72, (40, 120, 50)), (0, 98, (55, 145, 60))):
            canvas_figure.ellipse(dx, dy, 30, 28, colour)
    elif scene.companion == "house":
        canvas_figure.polygon([(-34, 0), (-34, 58), (34, 58), (34, 0)], (238, 214, 170))
        canvas_figure.polygon([(-44, 56), (0, 98), (44, 56)], (165, 60, 50))
        canvas_figure.polygon([(-10, 0), (-10, 34), (10, 34), (10, 0)], (95, 65, 45))
    elif scene.companion == "balloon":
        canvas_figure.line((0, 96), (3, 30), 3, (90, 90, 90))
        canvas_figure.polygon([(-8, 92), (8, 92), (0, 106)], (130, 55, 165))
        canvas_figure.ellipse(0, 130, 29, 34, (165, 75, 205))
        canvas_figure.ellipse(-9, 142, 8, 10, (225, 190, 245))
