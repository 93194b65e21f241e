"""Addition, replacement, another subject before the same background, and another word on a sign."""

import random
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import Source
from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.judge import TaskJudge
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, Change, Truth, others, scene_case, truths
from stableflow.benchmarks.tasks.ways import ours, rivals
from stableflow.models.base import FlowModel
from stableflow.scenes import ATTRIBUTES, Scene, edit, render
from stableflow.types import Images

ADDED, EXCHANGED = ("hat", "companion", "sign"), ("subject", "colour", "coat")


def added(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """A hat, a companion and a sign in turn come in."""
    name = ADDED[i % 3]
    return edit(scene, **{name: "none"}), {name: rng.choice(others(ATTRIBUTES[name], "none"))}


def exchanged(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """Another animal, another colour and another pattern in turn."""
    name = EXCHANGED[i % 3]
    return scene, {name: rng.choice(others(ATTRIBUTES[name], getattr(scene, name)))}


def another(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """Another animal of another colour and pattern before the same background."""
    return scene, {name: rng.choice(others(ATTRIBUTES[name], getattr(scene, name))) for name in EXCHANGED}


def rewritten(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """Another word on a sign."""
    words = others(ATTRIBUTES["sign"], "none")
    now = words[i % 3]
    return edit(scene, sign=now), {"sign": rng.choice(others(words, now))}


class LetterJudge:
    """letters: share of the letters on the sign that read as they should, over renders only.

    Where a letter stands is known; the picture there is the letter of the render that it is nearest to.
    """

    card = None

    def __init__(self, truths: Mapping[str, Truth]):
        self._truths = truths

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        if case.target is None:
            return {}
        target, size = self._truths[case.id].target, edits.shape[-1]
        pictures = {word: render(edit(target, sign=word), size) for word in others(ATTRIBUTES["sign"], "none")}
        right = []
        for place in _places(pictures, size):
            gaps = {word: float((pictures[word] - edits[0]).abs()[:, place].mean()) for word in pictures}
            right.append(min(gaps, key=lambda word: gaps[word]) == target.sign)
        return {"letters": [sum(right) / len(right)]}


def _places(pictures: Mapping[str, Tensor], size: int) -> list[Bool[Tensor, "size size"]]:
    """The left and the right half of where the words differ."""
    first = next(iter(pictures.values()))
    differs = torch.stack([(picture - first).abs().sum(0) for picture in pictures.values()]).sum(0) > 0.1
    columns = differs.any(0).nonzero().flatten()
    middle = int(columns.float().mean().round())
    left, right = differs.clone(), differs.clone()
    left[:, middle:], right[:, :middle] = False, False
    return [left, right]


def _row(task: str, change: Change, figures: tuple[str, ...], goals: dict[str, float]) -> Row:
    def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
        found = truths(count, change, first=first)
        made = [scene_case(name, truth, truth.changed[0], real=real) for name, truth in found.items()]
        return Cases(made, [TaskJudge(found), *([LetterJudge(found)] if "letters" in figures else [])])

    def ways(model: FlowModel, real: bool) -> list[Setting]:
        masked = [ours("task, mask drawn", task, real=real, masked=True)] if real else []
        return [ours("task", task, real=real), *masked, *rivals(real)]

    return Row(cases, ways, figures, goals)


FIGURES = ("edited", "hidden_kept", "told_kept", "psnr_outside", "psnr_target")
KINDS: dict[str, Callable[..., tuple[Scene, dict[str, str]]]] = {"add": added, "replace": exchanged}
for _name, _change in KINDS.items():
    ROWS.register(_name)(_row(_name, _change, FIGURES, {"edited": 0.95, "hidden_kept": 0.93}))
ROWS.register("subject")(_row("replace", another, FIGURES, {"edited": 0.95, "psnr_outside": 32.0}))
ROWS.register("text")(_row("text", rewritten, (*FIGURES, "letters"), {"edited": 0.95, "hidden_kept": 0.93}))
