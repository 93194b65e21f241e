"""Sky, skyline and ground."""

import random
from collections.abc import Callable

from stableflow.scenes.canvas import Canvas, Colour, mix
from stableflow.scenes.world import Scene

TINTS = {
    "cool": (0.8, 0.95, 1.18),
    "warm": (1.15, 1.0, 0.72),
    "pink": (1.16, 0.84, 1.02),
    "mint": (0.8, 1.12, 0.88),
}
SKIES = {
    "noon": ((115, 180, 240), (215, 235, 250)),
    "sunset": ((110, 70, 150), (255, 165, 85)),
    "night": ((60, 60, 130), (110, 110, 190)),
}
GROUNDS = {
    "grass": ((120, 200, 85), (75, 155, 55)),
    "beach": ((247, 224, 165), (228, 192, 128)),
    "snow": ((244, 247, 252), (218, 226, 240)),
    "street": ((118, 120, 126), (88, 90, 96)),
    "desert": ((236, 178, 104), (214, 138, 66)),
    "meadow": ((150, 205, 80), (105, 170, 55)),
}
Light = Callable[[Colour], Colour]


def horizon_height(scene: Scene) -> float:
    """Where the sky ends, from the top."""
    return 0.44 + 0.2 * _triangle(scene.horizon)


def draw_background(canvas: Canvas, scene: Scene) -> None:
    """Draw everything behind the subject; each part has a random stream of its own."""
    light, horizon = _light(scene), horizon_height(scene)
    draw_sky(canvas, scene, light, horizon)
    draw_clouds(canvas, scene, light, random.Random(f"{scene.seed} clouds"))
    draw_skyline(canvas, scene, light, horizon, random.Random(f"{scene.seed} skyline"))
    draw_ground(canvas, scene, light, horizon)


def _light(scene: Scene) -> Light:
    """The colour of a surface under this scene's time and tint."""

    def light(colour: Colour) -> Colour:
        r, g, b = (value * factor for value, factor in zip(colour, TINTS[scene.tint]))
        if scene.time == "night":
            return r * 0.42 + 4, g * 0.42 + 6, b * 0.42 + 34
        if scene.time == "sunset":
            return r * 0.72 + 44, g * 0.72 + 6, b * 0.72
        return r, g, b

    return light


def draw_sky(canvas: Canvas, scene: Scene, light: Light, horizon: float) -> None:
    top, low = SKIES[scene.time]
    canvas.gradient(0, horizon, light(top), light(low))
    x = 0.12 + 0.76 * _triangle(scene.sun)
    if scene.time == "noon":
        canvas.ellipse(x, 0.13, 0.085, 0.085, (255, 228, 90))
    elif scene.time == "sunset":
        canvas.ellipse(x, horizon - 0.04, 0.14, 0.14, (255, 225, 120))
    else:
        stars = random.Random(f"{scene.seed} stars")
        for _ in range(10):
            canvas.ellipse(stars.random(), stars.random() * horizon * 0.9, 0.012, 0.012, (255, 255, 230))
        canvas.ellipse(x, 0.13, 0.085, 0.085, (245, 240, 200))
        canvas.ellipse(x + 0.04, 0.11, 0.075, 0.075, light(top))


def draw_clouds(canvas: Canvas, scene: Scene, light: Light, rng: random.Random) -> None:
    colour = light({"noon": (252, 252, 255), "sunset": (235, 140, 130), "night": (150, 150, 190)}[scene.time])
    for i in range(3):
        x, y, size = (
            (scene.phase + i / 3) % 1,
            0.08 + 0.08 * i + 0.03 * rng.random(),
            0.07 + 0.03 * rng.random(),
        )
        if scene.clouds == "puffy":
            for shift in (-1, 0, 1):
                lift = 0.3 * size if shift == 0 else 0.0
                canvas.ellipse(x + shift * size, y - lift, size, size * 0.6, colour)
        elif scene.clouds == "streaks":
            canvas.ellipse(x, y, size * 2.8, 0.02, colour)


def draw_skyline(canvas: Canvas, scene: Scene, light: Light, horizon: float, rng: random.Random) -> None:
    count = {"plain": 0, "hills": 3, "peaks": 3, "towers": 6, "forest": 8}[scene.skyline]
    for i in range(count):
        x, size = (scene.phase + i / count) % 1 * 1.2 - 0.1, 0.8 + 0.4 * rng.random()
        if scene.skyline == "hills":
            canvas.ellipse(x, horizon, 0.32 * size, 0.17 * size, light(mix((95, 165, 90), (70, 130, 95), i / 3)))
        elif scene.skyline == "peaks":
            _draw_peak(canvas, x, horizon, 0.33 * size, light)
        elif scene.skyline == "towers":
            _draw_tower(canvas, scene, x, horizon, 0.31 * size, light, i)
        else:
            top = horizon - 0.24 * size
            colour = light(mix((35, 105, 60), (55, 130, 70), i % 2))
            canvas.polygon([(x - 0.085, horizon), (x, top), (x + 0.085, horizon)], colour)


def _draw_peak(canvas: Canvas, x: float, horizon: float, height: float, light: Light) -> None:
    top = horizon - height
    canvas.polygon([(x - 0.3, horizon), (x, top), (x + 0.3, horizon)], light((120, 125, 150)))
    cap = [(x - 0.1, top + height / 3), (x, top), (x + 0.1, top + height / 3)]
    canvas.polygon(cap, light((245, 248, 255)))


def _draw_tower(canvas: Canvas, scene: Scene, x: float, horizon: float, height: float, light: Light, i: int) -> None:
    walls = [(160, 120, 105), (125, 130, 150), (170, 155, 125)][i % 3]
    canvas.rectangle(x - 0.075, horizon - height, x + 0.075, horizon, light(walls))
    windows = light((225, 235, 245)) if scene.time == "noon" else (250, 238, 150)
    rows = int((height - 0.04) / 0.09)
    for row in range(rows):
        top = horizon - height + 0.035 + row * 0.09
        for left in (x - 0.05, x + 0.012):
            canvas.rectangle(left, top, left + 0.038, top + 0.045, windows)


def draw_ground(canvas: Canvas, scene: Scene, light: Light, horizon: float) -> None:
    near, far = GROUNDS[scene.place]
    canvas.gradient(horizon, 1, light(near), light(far))
    if scene.place == "beach":
        canvas.rectangle(0, horizon, 1, horizon + 0.08, light((40, 125, 200)))
        canvas.rectangle(0, horizon + 0.08, 1, horizon + 0.1, light((250, 250, 250)))
    elif scene.place == "street":
        canvas.rectangle(0, horizon, 1, horizon + 0.05, light((195, 195, 195)))
        for i in range(4):
            canvas.rectangle(0.04 + i * 0.26, 0.94, 0.18 + i * 0.26, 0.975, light((240, 230, 120)))
    elif scene.place == "desert":
        _draw_desert(canvas, light, horizon, random.Random(f"{scene.seed} desert"))
    elif scene.place == "meadow":
        _draw_flowers(canvas, light, horizon, random.Random(f"{scene.seed} flowers"))


def _draw_desert(canvas: Canvas, light: Light, horizon: float, rng: random.Random) -> None:
    """Dunes on the horizon and two cacti before them."""
    for i in range(2):
        canvas.ellipse(rng.random(), horizon + 0.06, 0.4, 0.1, light(((225, 160, 84), (240, 186, 112))[i]))
    green = light((60, 135, 75))
    for i in range(2):
        x, foot, size = 0.12 + 0.66 * i + 0.12 * rng.random(), horizon + 0.13, 0.85 + 0.3 * rng.random()
        canvas.line((x, foot), (x, foot - 0.2 * size), 0.045 * size, green)
        for side, low, high in ((-1, 0.08, 0.15), (1, 0.11, 0.18)):
            arm = x + side * 0.065 * size
            canvas.line((x, foot - low * size), (arm, foot - low * size), 0.03 * size, green)
            canvas.line((arm, foot - low * size), (arm, foot - high * size), 0.03 * size, green)


def _draw_flowers(canvas: Canvas, light: Light, horizon: float, rng: random.Random) -> None:
    """Flowers in rows, larger the nearer they are."""
    petals = ((250, 250, 250), (250, 120, 170), (255, 225, 70), (235, 70, 70))
    for row in range(4):
        near = (row + 0.6) / 4
        y, size = horizon + (1 - horizon) * near, 0.012 + 0.014 * near
        for i in range(6):
            x, colour = (i + 0.5 * (row % 2) + 0.5 * rng.random()) / 6, light(rng.choice(petals))
            for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                canvas.ellipse(x + dx * size, y + dy * size, size * 0.8, size * 0.8, colour)
            canvas.ellipse(x, y, size * 0.7, size * 0.7, light((250, 190, 40)))


def _triangle(position: float) -> float:
    """From the circle [0, 1) to [0, 1] without a jump."""
    return 1 - abs(2 * position - 1)
