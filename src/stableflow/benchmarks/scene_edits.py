"""Edits of synthetic scenes, one word of a caption each."""

import random
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
    kinds, told = (KINDS, TOLD) if layers == 2 else (KINDS + THIRD_KINDS, TOLD | set(THIRD_KINDS))
    known, cases = attributes(layers), []
    for i in range(count):
        rng = random.Random(f"scene edit {i}")
        kind = kinds[i % len(kinds)]
        attribute = rng.choice(REMOVABLE) if kind == "removal" else kind
        source = sample_split(FIRST_SEED + i, held=True, layers=layers)
        if kind in THIRD_KINDS:
            source, values = edit(source, **ALONE), known[kind][1:]
            if kind != "second":
                source = edit(source, **{"position": "middle", "size": "usual", kind: rng.choice(values)})
            target = edit(source, **{kind: rng.choice([v for v in values if v != getattr(source, kind)])})
            cases.append(SceneEdit(source, target, kind, kind, random_keep(rng, layers) | told, seed=i))
            continue
        if kind == "removal":
            source = edit(source, **{attribute: rng.choice([v for v in known[attribute] if v != "none"])})
            target = edit(source, **{attribute: "none"})
        else:
            if attribute in REMOVABLE:
                source = edit(source, **{attribute: "none"})
            values = [v for v in known[attribute] if v not in (getattr(source, attribute), "none")]
            target = edit(source, **{attribute: rng.choice(values)})
        cases.append(SceneEdit(source, target, attribute, kind, random_keep(rng, layers) | told | {attribute}, seed=i))
    return cases
