"""Edited captions by template: crude, offline, always the same, and meant to be read before use."""

import random
import re
from collections.abc import Sequence

CATEGORIES = ("non-rigid", "addition", "replacement", "scene")
"""The paper's kinds of edits."""

NAMES = {
    "person": ("man", "woman", "boy", "girl", "person", "child", "lady", "kid", "surfer", "skier", "player"),
    "bird": ("bird", "parrot", "duck", "pigeon", "seagull", "owl"),
    "cat": ("cat", "kitten"),
    "dog": ("dog", "puppy"),
    "horse": ("horse", "pony"),
    "sheep": ("sheep", "lamb"),
    "cow": ("cow", "bull", "calf"),
    "elephant": ("elephant",),
    "bear": ("bear",),
    "zebra": ("zebra",),
    "giraffe": ("giraffe",),
}
"""Words by which captions name COCO's categories, one of them at a time."""

REPLACEMENTS = {
    "person": ("robot", "statue"),
    "bird": ("squirrel", "cat"),
    "cat": ("dog", "rabbit", "fox"),
    "dog": ("cat", "fox", "pig"),
    "horse": ("camel", "cow", "zebra"),
    "sheep": ("goat", "pig", "llama"),
    "cow": ("horse", "buffalo", "deer"),
    "elephant": ("rhinoceros", "camel"),
    "bear": ("gorilla", "tiger", "lion"),
    "zebra": ("horse", "donkey", "deer"),
    "giraffe": ("camel", "horse", "ostrich"),
}
POSES = {
    "person": ("standing", "sitting", "crouching", "jumping", "walking"),
    "bird": ("standing", "flying", "walking"),
    "animal": ("standing", "sitting", "lying", "walking", "jumping"),
}
GESTURES = {"person": "with raised arms", "bird": "with spread wings", "animal": "with its head turned to the side"}
ADDITIONS = {
    "person": ("wearing a red hat", "wearing sunglasses", "wearing a blue scarf"),
    "animal": ("wearing a red hat", "wearing a blue scarf", "wearing a collar with a bell"),
}
SCENES = ("in the snow", "on a beach", "in a desert", "in a forest", "on a city street")

_POSE = re.compile(
    r"\b(standing|sitting|seated|lying|laying|walking|running|jumping|crouching|sleeping|resting|grazing|perched)"
    r"( down| up)?\b",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"\b(?:in|on|at|across|through|along)\s+(?:a |an |the |some )?(?:\w+ )?"
    r"(?:snow|beach|desert|forest|street|road|grass|field|pasture|park|yard|room|kitchen|water|ocean|sand|sidewalk)\b",
    re.IGNORECASE,
)


def mention(caption: str, thing: str) -> re.Match[str] | None:
    """Find the first word that names a thing of this COCO category, in the singular."""
    words = "|".join(NAMES.get(thing, (re.escape(thing),)))
    return re.search(rf"\b(?:{words})\b(?!['’-])", caption, re.IGNORECASE)


def template_edits(caption: str, thing: str, *, seed: int) -> dict[str, str]:
    """Write one edited caption of each category.

    Args:
        caption: Names the thing (see `mention`).
        thing: COCO's category of it.
        seed: Decides between the templates.

    Example:
        >>> template_edits("A dog standing on the grass", "dog", seed=1)["replacement"]
        'A cat standing on the grass'
    """
    rng, word = random.Random(seed), mention(caption, thing)
    assert word is not None, (caption, thing)
    kind = thing if thing in ("person", "bird") else "animal"
    return {
        "non-rigid": _another_pose(caption, kind, rng),
        "addition": f"{caption[: word.end()]} {rng.choice(_for(kind, ADDITIONS))}{caption[word.end() :]}",
        "replacement": _replaced(caption, word.group(), rng.choice(REPLACEMENTS.get(thing, ("statue",)))),
        "scene": _another_scene(caption, rng),
    }


def _another_pose(caption: str, kind: str, rng: random.Random) -> str:
    pose = _POSE.search(caption)
    if pose is None:
        return f"{caption}, {GESTURES[kind]}"
    new = rng.choice([other for other in POSES[kind] if other != pose.group(1).lower()])
    return f"{caption[: pose.start()]}{_cased_like(pose.group(), new)}{caption[pose.end() :]}"


def _another_scene(caption: str, rng: random.Random) -> str:
    place = _PLACE.search(caption)
    if place is None:
        return f"{caption}, {rng.choice(SCENES)}"
    known = place.group().lower().split()[-1]
    new = rng.choice([scene for scene in SCENES if not scene.endswith(known)])
    return f"{caption[: place.start()]}{_cased_like(place.group(), new)}{caption[place.end() :]}"


def _replaced(caption: str, old: str, new: str) -> str:
    """Replace a word, and the article right before it."""

    def put(match: re.Match[str]) -> str:
        article = match.group(1)
        if article is not None:
            article = _cased_like(article, "a" if new[0] not in "aeiou" else "an") + match.group(2)
        return f"{article or ''}{_cased_like(match.group(3), new)}"

    return re.sub(rf"(?:\b(an?)(\s+))?\b({re.escape(old)})\b(?!['’-])", put, caption, flags=re.IGNORECASE)


def _cased_like(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _for(kind: str, table: dict[str, tuple[str, ...]]) -> Sequence[str]:
    return table.get(kind, table["animal"])
