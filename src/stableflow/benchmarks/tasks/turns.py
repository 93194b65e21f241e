"""Four turns in a row: how much of what nobody named drifts, by what each turn refers to."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import HIGHEST_PSNR, Source
from stableflow.benchmarks.scene_edits import FIRST_SEED, TOLD
from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, others
from stableflow.benchmarks.tasks.ways import source_of
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.metrics.pixels import psnr
from stableflow.models.base import FlowModel
from stableflow.models.bundled import bundled_path
from stableflow.scenes import ATTRIBUTES, Scene, caption, changed_region, edit, random_keep, render, sample_split
from stableflow.types import Images

CHANGED = ("pose", "colour", "place", "time", "hat", "companion", "coat", "subject")
TURNS = 4


@dataclass(frozen=True)
class Turned:
    """A scene and what it is after each turn.

    Args:
        scenes: The source first.
        changed: The attribute of each turn.
        told: Attributes that captions name.
    """

    scenes: tuple[Scene, ...]
    changed: tuple[str, ...]
    told: frozenset[str]
    seed: int


class TurnsJudge:
    """What drifts and what is obeyed, after the first turn and after the last.

    drift_1, drift_4: share of the properties that no turn touches, told and hidden, read otherwise than on the source.
    growth: drift_4 - drift_1, case by case.
    words_1, words_4: share of the words so far that are obeyed.
    outside_4: PSNR to the source outside all that the turns change, dB; where that is known.
    """

    card = None

    def __init__(self, turned: Mapping[str, Turned]):
        self._turned = turned
        self._classifier = AttributeClassifier.load(bundled_path("classifier"))

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        turned = self._turned[case.id]
        before, after = self._classifier.read(source)[0], self._classifier.read(edits)
        untouched = [name for name in before if name not in turned.changed]
        drift = [sum(before[name] != read[name] for name in untouched) / len(untouched) for read in after]
        words = [
            sum(read[name] == getattr(scene, name) for name in turned.changed[: i + 1]) / (i + 1)
            for i, (read, scene) in enumerate(zip(after, turned.scenes[1:]))
        ]
        figures = {
            "words_1": words[0], "words_4": words[-1], "drift_1": drift[0], "drift_4": drift[-1],
            "growth": drift[-1] - drift[0],
        }  # fmt: skip
        if case.mask is not None:
            figures["outside_4"] = psnr(source, edits[-1:], ~case.mask).clamp(max=HIGHEST_PSNR).item()
        return {name: [value] for name, value in figures.items()}


def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
    """Return the cases and their judge."""
    turned = {f"{i:04d}": _turned(first + i) for i in range(count)}
    return Cases([_case(name, each, real=real) for name, each in turned.items()], [TurnsJudge(turned)])


def ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return what turns may refer to: turn 0, the turn before by its path, the turn before by its picture."""
    source = source_of(real)
    return [
        Setting("from turn 0", source=source, follow="source"),
        Setting("rebased each turn", source=source, follow="turn"),
        Setting("re-encoded each turn", source=source, follow="picture"),
    ]


def _turned(number: int) -> Turned:
    rng = random.Random(f"turns {number}")
    scenes = [sample_split(FIRST_SEED + number, held=True)]
    changed = tuple(rng.sample(CHANGED, TURNS))
    for name in changed:
        scenes.append(edit(scenes[-1], **{name: rng.choice(others(ATTRIBUTES[name], getattr(scenes[-1], name)))}))
    return Turned(tuple(scenes), changed, random_keep(rng) | TOLD | set(changed), FIRST_SEED + number)


def _case(name: str, turned: Turned, *, real: bool, size: int = 64) -> Case:
    prompt, *edited = (caption(scene, turned.told) for scene in turned.scenes)
    if not real:
        return Case(name, prompt, tuple(edited), "turns", seed=turned.seed)
    mask = changed_region(turned.scenes[0], turned.scenes[1], size)
    for scene in turned.scenes[2:]:
        mask = mask | changed_region(turned.scenes[0], scene, size)
    return Case(name, prompt, tuple(edited), "turns", image=render(turned.scenes[0], size), mask=mask)


ROWS.register("turns")(
    Row(
        cases, ways, ("words_1", "words_4", "drift_1", "drift_4", "growth", "outside_4"), {"growth": -0.02},
    )
)  # fmt: skip
