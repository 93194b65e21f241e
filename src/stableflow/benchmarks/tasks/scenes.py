"""Held-out scenes for the task benchmark, and what is true of them."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.scene_edits import FIRST_SEED, TOLD
from stableflow.region import Region
from stableflow.scenes import Scene, caption, changed_region, edit, random_keep, render, sample_split

FIRST = 1_000  # scenes before are the older benchmarks'; those from 3000 on were used to choose settings
FIRST_TUNED_ON = 3_000


@dataclass(frozen=True)
class Truth:
    """A scene, what it is to become, and what both captions say.

    Args:
        changed: Attributes that the edit changes.
        told: Attributes that the captions name.
    """

    source: Scene
    target: Scene
    changed: tuple[str, ...]
    told: frozenset[str]
    seed: int

    @property
    def prompts(self) -> tuple[str, str]:
        """What the source shows, and what the edit asks for."""
        return caption(self.source, self.told), caption(self.target, self.told)


Change = Callable[[Scene, random.Random, int], tuple[Scene, dict[str, str]]]
"""From a scene, its random stream and its number to the source, and to what changes in it."""


def truths(count: int, change: Change, *, first: int = FIRST) -> dict[str, Truth]:
    """Return what is true of held-out scenes by case id; the i-th of a change is always the same."""
    return {f"{i:04d}": _truth(first + i, i, change) for i in range(count)}


def _truth(number: int, i: int, change: Change) -> Truth:
    rng = random.Random(f"task scene {number}")
    source, values = change(sample_split(FIRST_SEED + number, held=True), rng, i)
    told = random_keep(rng) | TOLD | set(values)
    return Truth(source, edit(source, **values), tuple(values), told, FIRST_SEED + number)


def scene_case(name: str, truth: Truth, category: str, *, real: bool, size: int = 64) -> Case:
    """Return the case of a truth: its source a render, or drawn from its caption.

    A real one brings the exactly changed region and the true edit; ways that ask for `region` are given the former,
    grown by two pixels as a hand would draw it.
    """
    prompt, edited = truth.prompts
    if not real:
        return Case(name, prompt, (edited,), category, seed=truth.seed)
    changed = changed_region(truth.source, truth.target, size)
    return Case(
        name, prompt, (edited,), category, image=render(truth.source, size), mask=changed,
        target=render(truth.target, size), call={"region": drawn(changed)},
    )  # fmt: skip


def drawn(region: Bool[Tensor, "height width"], by: int = 2) -> Region:
    """Return a mask as a hand would draw it over a region: grown by some pixels."""
    return Region(region[None].float()).grow(by)


def others(values: Sequence[str], now: str) -> list[str]:
    """Return the values that an attribute could change to."""
    return [value for value in values if value not in (now, "none")]


def without(scene: Scene, *names: str) -> Scene:
    """Return the scene without a hat, companion or sign."""
    return dataclasses.replace(scene, **dict.fromkeys(names, "none"))
