"""Style: the same scene, drawn otherwise."""

import random
from dataclasses import replace

import torch

from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.judge import TaskJudge
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, others, scene_case, truths
from stableflow.benchmarks.tasks.ways import ours, rivals
from stableflow.models.base import FlowModel
from stableflow.scenes import ATTRIBUTES, Scene, edit

STYLES = ATTRIBUTES["style"]


def change(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """From each style to another in turn."""
    now = STYLES[i % 3]
    return edit(scene, style=now), {"style": rng.choice(others(STYLES, now))}


def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
    """Return the cases and their judge; a style changes every pixel, so there is no outside."""
    found = truths(count, change, first=first)
    made = [scene_case(name, truth, truth.target.style, real=real) for name, truth in found.items()]
    whole = [case if case.mask is None else replace(case, mask=torch.ones_like(case.mask)) for case in made]
    return Cases(whole, [TaskJudge(found)])


def ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return the task and the rivals."""
    return [ours("task", "style", real=real), *rivals(real)]


ROWS.register("style")(
    Row(
        cases, ways, ("edited", "iou", "hidden_kept", "told_kept", "psnr_target"),
        {"edited": 0.95, "iou": 0.9, "hidden_kept": 0.9},
    )
)  # fmt: skip
