"""Edits of synthetic scenes, one word of a caption each."""

import random
from dataclasses import dataclass

from stableflow.scenes import ATTRIBUTES, Scene, caption, edit, random_keep, sample_split

FIRST_SEED = 20_000_000  # neither trained nor validated on
KINDS = ("pose", "companion", "hat", "place", "colour", "subject", "time", "removal", "style", "sign", "coat")
REMOVABLE = ("hat", "companion", "sign")
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


def scene_edits(count: int) -> list[SceneEdit]:
    """Return edits of held-out scenes, each kind in turn; the i-th is always the same.

    A hat, companion or sign is added, except by the kind "removal", which takes one away.
    """
    cases = []
    for i in range(count):
        rng = random.Random(f"scene edit {i}")
        kind = KINDS[i % len(KINDS)]
        attribute = rng.choice(REMOVABLE) if kind == "removal" else kind
        source = sample_split(FIRST_SEED + i, held=True)
        if kind == "removal":
            source = edit(source, **{attribute: rng.choice([v for v in ATTRIBUTES[attribute] if v != "none"])})
            target = edit(source, **{attribute: "none"})
        else:
            if attribute in REMOVABLE:
                source = edit(source, **{attribute: "none"})
            values = [v for v in ATTRIBUTES[attribute] if v not in (getattr(source, attribute), "none")]
            target = edit(source, **{attribute: rng.choice(values)})
        cases.append(SceneEdit(source, target, attribute, kind, random_keep(rng) | TOLD | {attribute}, seed=i))
    return cases
