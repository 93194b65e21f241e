"""Edits of synthetic scenes, one word of a caption each."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from stableflow.scenes import Scene, attributes, caption, edit, random_keep, sample_split

FIRST_SEED = 20_000_000  # neither trained nor validated on
KINDS = ("pose", "companion", "hat", "place", "colour", "subject", "time", "removal", "style", "sign", "coat")
THIRD_KINDS = ("position", "size", "second")
"""Of the world's third layer: move, resize, and a second figure that comes in."""

REMOVABLE = ("hat", "companion", "sign")
ALONE = {"companion": "none", "sign": "none", "second": "none"}
TOLD = {"subject", "hat", "sign", "style", "coat"}
"""Named in every caption, since leaving them out says something too."""


@dataclass(frozen=True)
class SceneEdit:
    """One word changed in a scene's caption, which leaves other attributes unsaid as training captions do.

    Args:
        attribute: What changes.
        kind: Of the edit: the attribute's name, or "removal".
        told: Attributes that both captions name.
    """

    source: Scene
    target: Scene
    attribute: str
    kind: str
    told: frozenset[str]
    seed: int

    @property
    def prompts(self) -> tuple[str, str]:
        return caption(self.source, self.told), caption(self.target, self.told)


def scene_edits(count: int, layers: int = 2) -> list[SceneEdit]:
    """Return edits of held-out scenes, each kind in turn; the i-th is always the same.

    A hat, companion or sign is added, except by the kind "removal", which takes one away. In a world of three layers a
    subject that stands alone also moves from side to side, goes far away or comes close, and a second figure comes in.
    """
    kinds = KINDS if layers == 2 else KINDS + THIRD_KINDS
    return [_scene_edit(i, kinds[i % len(kinds)], layers) for i in range(count)]


def _scene_edit(i: int, kind: str, layers: int) -> SceneEdit:
    rng = random.Random(f"scene edit {i}")
    attribute = rng.choice(REMOVABLE) if kind == "removal" else kind
    source = sample_split(FIRST_SEED + i, held=True, layers=layers)
    change = _third_change if kind in THIRD_KINDS else _change
    source, target = change(source, kind, attribute, attributes(layers)[attribute], rng)
    told = TOLD | {attribute} | (set(THIRD_KINDS) if layers == 3 else set())
    return SceneEdit(source, target, attribute, kind, random_keep(rng, layers) | told, seed=i)


def _change(source: Scene, kind: str, attribute: str, values: Sequence[str], rng: random.Random) -> tuple[Scene, Scene]:
    if kind == "removal":
        source = edit(source, **{attribute: rng.choice([v for v in values if v != "none"])})
        return source, edit(source, **{attribute: "none"})
    if attribute in REMOVABLE:
        source = edit(source, **{attribute: "none"})
    others = [v for v in values if v not in (getattr(source, attribute), "none")]
    return source, edit(source, **{attribute: rng.choice(others)})


def _third_change(
    source: Scene, kind: str, attribute: str, values: Sequence[str], rng: random.Random
) -> tuple[Scene, Scene]:
    """From one value that is said to another, of a subject alone; a second figure comes in where none was."""
    source = edit(source, **ALONE)
    if kind != "second":
        source = edit(source, **{"position": "middle", "size": "usual", kind: rng.choice(values[1:])})
    others = [v for v in values[1:] if v != getattr(source, kind)]
    return source, edit(source, **{kind: rng.choice(others)})
