"""Background: another place, or another place and time, behind the same figure."""

import random
from dataclasses import replace

from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.judge import TaskJudge
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, others, scene_case, truths, without
from stableflow.benchmarks.tasks.ways import ours, rivals
from stableflow.models.base import FlowModel
from stableflow.region import Region
from stableflow.scenes import ATTRIBUTES, Scene, silhouette


def change(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """Another place, every second time at another time as well; the figure stands alone."""
    names = ("place", "time")[: 1 + i % 2]
    alone = without(scene, "companion", "sign")
    return alone, {name: rng.choice(others(ATTRIBUTES[name], getattr(scene, name))) for name in names}


def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
    """Return the cases and their judge, which asks of hidden properties only those of the figure."""
    found = truths(count, change, first=first)
    judge = TaskJudge(found, hidden=("facing", "side"))
    made = [scene_case(name, truth, truth.changed[-1], real=real) for name, truth in found.items()]
    around = [{"region": ~Region(silhouette(truth.source)[None].float())} if real else {} for truth in found.values()]
    return Cases([replace(case, call=call) for case, call in zip(made, around)], [judge])


def ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return the task without and, over renders, with a drawn mask, and the rivals."""
    masked = [ours("task, mask drawn", "background", real=real, masked=True)] if real else []
    return [ours("task", "background", real=real), *masked, *rivals(real)]


ROWS.register("background")(
    Row(
        cases, ways, ("edited", "subject_kept", "iou", "psnr_outside", "psnr_target"),
        {"edited": 0.95, "subject_kept": 0.97, "iou": 0.838},  # within .03 of the true edit's own, .868 over 48 renders
    )
)  # fmt: skip
