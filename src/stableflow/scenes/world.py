"""What a scene is: captioned attributes, hidden properties, and how they hang together."""

import dataclasses
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.errors import InputError, unknown_name

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "subject": ("dog", "cat", "bird"),
    "colour": ("red", "blue", "yellow", "green", "white", "black"),
    "pose": ("standing", "sitting", "jumping"),
    "hat": ("none", "red", "blue", "yellow"),
    "place": ("grass", "beach", "snow", "street"),
    "time": ("noon", "sunset", "night"),
    "companion": ("none", "ball", "tree", "house", "balloon"),
    "coat": ("plain", "striped", "spotted"),
    "sign": ("none", "go", "hi", "up"),
    "style": ("flat", "sketch", "watercolour"),
}
"""Attributes that captions name, and their values."""

LATER: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "coat": ("plain", (0.5, 0.25, 0.25)),
    "sign": ("none", (0.58, 0.14, 0.14, 0.14)),
    "style": ("flat", (0.56, 0.22, 0.22)),
}
"""Attributes of the second layer of the world: the value that leaves a scene of the first as it was, and shares."""

SECOND_FIGURES = tuple(
    f"{colour} {subject}" for colour in ("red", "blue", "white") for subject in ("dog", "cat", "bird")
)
THIRD: Mapping[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "place": (("", "desert", "meadow"), (0.67, 0.165, 0.165)),
    "position": (("middle", "left", "right"), (0.4, 0.3, 0.3)),
    "size": (("usual", "far", "near"), (0.5, 0.25, 0.25)),
    "second": (("none", *SECOND_FIGURES), (0.7, *[0.3 / len(SECOND_FIGURES)] * len(SECOND_FIGURES))),
}
"""What the third layer adds: values, the first of which leaves a scene of the first two as it was, and shares."""

HIDDEN: Mapping[str, tuple[str, ...]] = {
    "facing": ("left", "right"),
    "side": ("left", "right"),
    "tint": ("cool", "warm", "pink", "mint"),
    "skyline": ("plain", "hills", "peaks", "towers", "forest"),
    "clouds": ("clear", "puffy", "streaks"),
}
"""Properties that no caption names: what an edit can lose without anyone having asked for it."""

CONTINUOUS = ("horizon", "scale", "phase", "sun")
"""Hidden properties with values in [0, 1)."""

ENTANGLED = 0.9  # share of scenes in which a hidden property follows from the captioned ones
JITTER = 0.08  # spread around the value that follows
LAYERS = (2, 3)  # of the world, as many as a model is trained on: `tiny` two, `small` three
HELD_OUT = 16  # one combination of subject, colour and place in so many is never trained on


@dataclass(frozen=True)
class Scene:
    """A picture as values; `seed` feeds one random stream for each part of the picture.

    Every value is explicit, so changing one leaves all others, and all other random draws, as they were. `stands` puts
    the subject where no value would: x, the height of its feet, both of the picture's side, and its scale.
    """

    subject: str
    colour: str
    pose: str
    hat: str
    place: str
    time: str
    companion: str
    facing: str
    side: str
    tint: str
    skyline: str
    clouds: str
    horizon: float
    scale: float
    phase: float
    sun: float
    seed: int
    coat: str = "plain"
    sign: str = "none"
    style: str = "flat"
    position: str = "middle"
    size: str = "usual"
    second: str = "none"
    stands: tuple[float, float, float] | None = None


def attributes(layers: int = 2) -> Mapping[str, tuple[str, ...]]:
    """Return the attributes that captions name, and their values, in a world of two or three layers."""
    if layers not in LAYERS:
        raise InputError(f"The world has {LAYERS[0]} or {LAYERS[-1]} layers, not {layers}.")
    if layers == 2:
        return ATTRIBUTES
    added = {name: values for name, (values, _) in THIRD.items() if name != "place"}
    return {**ATTRIBUTES, "place": (*ATTRIBUTES["place"], *THIRD["place"][0][1:]), **added}


def sample(rng: random.Random, layers: int = 2) -> Scene:
    """Draw a scene from the world's distribution.

    Subject, colour, pose, hat and place are independent. Time and companion follow from them half of the time, and the
    hidden properties follow from all of them nine times in ten: changing one word of a caption moves the most likely
    value of every hidden property, as it does in photographs. Attributes of the second layer are independent, drawn
    from streams of their own, and move every hidden property on; without them, a seed's scene is that of the first.
    So it is with the third layer, in which a subject on one side has its companion on the other, and a second figure
    takes the place of companion and sign.

    Args:
        layers: 2, or 3 for the world with position, size, a second figure and more places.
    """
    told = {name: rng.choice(ATTRIBUTES[name]) for name in ("subject", "colour", "pose", "place")}
    told["hat"] = rng.choice(("none", "none", "none", *ATTRIBUTES["hat"][1:]))
    follows = dict(told)
    told["time"] = _pick(_position("time", follows, rng, 0.5), ATTRIBUTES["time"])
    told["companion"] = _pick(_position("companion", follows, rng, 0.5), ("none", "none", *ATTRIBUTES["companion"]))
    positions = {name: _position(name, told, rng, ENTANGLED) for name in (*HIDDEN, *CONTINUOUS)}
    seed = rng.randrange(1 << 30)
    later = {name: _draw_later(name, seed) for name in LATER}
    third = _draw_third(seed) if layers == 3 else {}
    moved = {name: (position + _shift(name, {**later, **third})) % 1 for name, position in positions.items()}
    hidden = {name: _pick(moved[name], values) for name, values in HIDDEN.items()}
    numbers = {name: moved[name] for name in CONTINUOUS}
    values: dict[str, Any] = {**told, **hidden, **numbers, **later, **third}
    if "position" in third:
        values["side"] = third["position"]
    if "second" in third:
        values |= {"companion": "none", "sign": "none"}
    return Scene(**values, seed=seed)


def _draw_third(seed: int) -> dict[str, str]:
    """Return the values that the third layer gives this seed's scene, those that leave it as it was left out."""
    drawn = {
        name: random.Random(f"{seed} third {name}").choices(values, shares)[0]
        for name, (values, shares) in THIRD.items()
    }
    if drawn["size"] == "near":
        drawn["position"] = "middle"  # a close-up fills the picture
    return {name: value for name, value in drawn.items() if value != THIRD[name][0][0]}


def _draw_later(name: str, seed: int) -> str:
    return random.Random(f"{seed} {name}").choices(ATTRIBUTES[name], LATER[name][1])[0]


def _shift(name: str, added: Mapping[str, str]) -> float:
    """How far these values of later layers move a hidden property on the circle [0, 1)."""
    plain = {key: values[0] for key, values in LATER.items()}
    return sum(_hash(name, key, value) for key, value in added.items() if value != plain.get(key))


def edit(scene: Scene, **changes: str) -> Scene:
    """Return the scene with some values changed and everything else, every random draw included, as it was.

    A move (`position`) and a resize (`size`) change the subject alone: a companion or a sign stays on its side.

    Raises:
        UnknownNameError: No such attribute, or no such value of it.
    """
    known = {**attributes(LAYERS[-1]), **HIDDEN}
    for name, value in changes.items():
        if name not in known:
            raise unknown_name("scene attribute", name, known)
        if value not in known[name]:
            raise unknown_name(f"value of {name}", value, known[name])
    return dataclasses.replace(scene, **changes)


def held_out(scene: Scene) -> bool:
    """Whether the scene's combination of subject, colour and place is kept out of training."""
    return int(_hash("held out", scene.subject, scene.colour, scene.place) * HELD_OUT) == 0


def sample_split(seed: int, *, held: bool, layers: int = 2) -> Scene:
    """Draw the scene of this seed from the training combinations, or from the held-out ones."""
    rng = random.Random(seed)
    while held_out(scene := sample(rng, layers)) != held:
        pass
    return scene


def check_names(names: Sequence[str]) -> None:
    """Raise unless every name is a captioned attribute."""
    known = attributes(LAYERS[-1])
    wrong = [name for name in names if name not in known]
    if wrong:
        raise InputError(f"{wrong} are no captioned attributes; those are {list(known)}.")


def _position(name: str, told: Mapping[str, str], rng: random.Random, strength: float) -> float:
    """A place on the circle [0, 1): near one fixed by the told values with probability `strength`, else uniform."""
    if rng.random() > strength:
        return rng.random()
    centre = sum(_hash(name, key, value) for key, value in told.items())
    return (centre + rng.uniform(-JITTER, JITTER)) % 1


def _pick(position: float, values: Sequence[str]) -> str:
    return values[int(position * len(values))]


def _hash(*words: str) -> float:
    """A fixed number in [0, 1) for these words, the same on every machine."""
    return (zlib.crc32("/".join(words).encode()) * 2654435761 % 2**32) / 2**32
