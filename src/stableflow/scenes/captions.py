"""What a caption says of a scene."""

import random
from collections.abc import Collection

from stableflow.scenes.world import LAYERS, Scene, attributes, check_names

PLACES = {
    "grass": "on the grass",
    "beach": "on the beach",
    "snow": "in the snow",
    "street": "on the street",
    "desert": "in the desert",
    "meadow": "in the meadow",
}
POSITIONS = {"left": "on the left", "right": "on the right"}
SIZES = {"far": "far away", "near": "close up"}
DROP = {
    "subject": 0.0,
    "colour": 0.35,
    "pose": 0.3,
    "hat": 0.15,
    "place": 0.3,
    "time": 0.4,
    "companion": 0.3,
    "coat": 0.12,
    "sign": 0.12,
    "style": 0.1,
    "position": 0.12,
    "size": 0.12,
    "second": 0.12,
}
"""How often a training caption leaves each attribute out; seldom where saying nothing has a meaning of its own."""

EVERYTHING = frozenset(attributes(LAYERS[-1]))


def caption(scene: Scene, keep: Collection[str] = EVERYTHING) -> str:
    """Describe a scene, naming only the attributes in `keep` (the subject is always named).

    Example:
        >>> import random
        >>> from stableflow.scenes import caption, edit, sample
        >>> scene = edit(sample(random.Random(0)), subject="dog", hat="blue", place="snow")
        >>> caption(scene, keep=["hat", "place"])
        'a dog wearing a blue hat in the snow'
    """
    check_names(list(keep))
    words = ["a"]
    if "style" in keep and scene.style != "flat":
        words += [scene.style, "of", "a"]
    if "coat" in keep and scene.coat != "plain":
        words += [scene.coat]
    if "colour" in keep:
        words += [scene.colour]
    words += [scene.subject]
    if "pose" in keep:
        words += [scene.pose]
    if "hat" in keep and scene.hat != "none":
        words += ["wearing a", scene.hat, "hat"]
    if "size" in keep and scene.size != "usual":
        words += [SIZES[scene.size]]
    if "position" in keep and scene.position != "middle":
        words += [POSITIONS[scene.position]]
    if "place" in keep:
        words += [PLACES[scene.place]]
    if "time" in keep:
        words += ["at", scene.time]
    if "companion" in keep and scene.companion != "none":
        words += ["next to a", scene.companion]
    if "sign" in keep and scene.sign != "none":
        words += ["with a sign saying", scene.sign]
    if "second" in keep and scene.second != "none":
        words += ["and a small", scene.second]
    return " ".join(words)


def random_keep(rng: random.Random, layers: int = 2) -> frozenset[str]:
    """Draw which attributes a training caption names."""
    return frozenset(name for name in attributes(layers) if rng.random() >= DROP[name])


def vocabulary(layers: int = 2) -> list[str]:
    """Every word that a caption of a world of so many layers can hold, sorted."""
    values = attributes(layers)
    phrases = ["a of a wearing a hat at next to a with a sign saying"]
    phrases += [PLACES[place] for place in values["place"]]
    if layers == 3:
        phrases += [*POSITIONS.values(), *SIZES.values(), "and a small", *values["second"]]
    spelt = {"place", "position", "size", "second"}  # out in phrases
    phrases += [value for name in values if name not in spelt for value in values[name]]
    return sorted({word for phrase in phrases for word in phrase.split()} - {"none", "plain", "flat"})
