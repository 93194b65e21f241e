"""What a caption says of a scene."""

import random
from collections.abc import Collection

from stableflow.scenes.world import ATTRIBUTES, Scene, check_names

PLACES = {"grass": "on the grass", "beach": "on the beach", "snow": "in the snow", "street": "on the street"}
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
}
"""How often a training caption leaves each attribute out; seldom where saying nothing has a meaning of its own."""

EVERYTHING = frozenset(ATTRIBUTES)


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
    if "place" in keep:
        words += [PLACES[scene.place]]
    if "time" in keep:
        words += ["at", scene.time]
    if "companion" in keep and scene.companion != "none":
        words += ["next to a", scene.companion]
    if "sign" in keep and scene.sign != "none":
        words += ["with a sign saying", scene.sign]
    return " ".join(words)


def random_keep(rng: random.Random) -> frozenset[str]:
    """Draw which attributes a training caption names."""
    return frozenset(name for name in ATTRIBUTES if rng.random() >= DROP[name])


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    values = {value for name, values in ATTRIBUTES.items() for value in values if name != "place"}
    glue = {"a", "of", "wearing", "hat", "at", "next", "to", "with", "sign", "saying"}
    glue |= {word for phrase in PLACES.values() for word in phrase.split()}
    return sorted(values - {"none", "plain", "flat"} | glue)
