"""Removal: a hat, a companion or a sign goes."""

import random

from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.judge import TaskJudge
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, others, scene_case, truths
from stableflow.benchmarks.tasks.ways import ours, rivals
from stableflow.models.base import FlowModel
from stableflow.scenes import ATTRIBUTES, Scene, edit

REMOVABLE = ("hat", "companion", "sign")


def change(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """Put the thing in where it is missing, and take it away; a hat, a companion and a sign in turn."""
    name = REMOVABLE[i % 3]
    now = getattr(scene, name)
    return edit(scene, **{name: rng.choice(others(ATTRIBUTES[name], "")) if now == "none" else now}), {name: "none"}


def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
    """Return the cases and their judge."""
    found = truths(count, change, first=first)
    return Cases(
        [scene_case(name, truth, truth.changed[0], real=real) for name, truth in found.items()], [TaskJudge(found)]
    )


def ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return the task without and, over renders, with a drawn mask, and the rivals."""
    masked = [ours("task, mask drawn", "remove", real=real, masked=True)] if real else []
    return [ours("task", "remove", real=real), *masked, *rivals(real)]


ROWS.register("remove")(
    Row(
        cases, ways, ("edited", "hidden_kept", "told_kept", "psnr_outside", "psnr_target", "same_outside"),
        {"edited": 0.97, "hidden_kept": 0.97, "psnr_outside": 32.0},
    )
)  # fmt: skip
