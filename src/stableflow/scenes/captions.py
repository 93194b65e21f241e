"""What a caption says of a scene."""

import random
from collections.abc import Collection

from stableflow.scenes.world import ATTRIBUTES, Scene, check_names

PLACES = {"grass": "on the grass", "beach": "on the beach", "snow": "in the snow", "street": "on the street"}
DROP = {"subject": 0.0, "colour": 0.35, "pose": 0.3, "hat": 0.15, "place": 0.3, "time": 0.4, "companion": 0.3}
"""How often a training caption leaves each attribute out."""

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
    words = ["a", *([scene.colour] if "colour" in keep else []), scene.subject]
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
    return " ".join(words)


def random_keep(rng: random.Random) -> frozenset[str]:
    """Draw which attributes a training caption names."""
    return frozenset(name for name in ATTRIBUTES if rng.random() >= DROP[name])


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    values = {value for name, values in ATTRIBUTES.items() for value in values if name != "place"} - {"none"}
    glue = {"a", "wearing", "hat", "at", "next", "to"} | {word for phrase in PLACES.values() for word in phrase.split()}
    return sorted(values | glue)
