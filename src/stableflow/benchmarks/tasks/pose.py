"""Pose, the paper's own non-rigid edit: the figure sits, jumps or lies, by the dial at auto."""

import random

from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.judge import TaskJudge
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, others, scene_case, truths
from stableflow.benchmarks.tasks.ways import source_of
from stableflow.models.base import FlowModel
from stableflow.scenes import ATTRIBUTES, Scene


def change(scene: Scene, rng: random.Random, i: int) -> tuple[Scene, dict[str, str]]:
    """Another pose."""
    return scene, {"pose": rng.choice(others(ATTRIBUTES["pose"], scene.pose))}


def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
    """Return the cases and their judge."""
    found = truths(count, change, first=first)
    return Cases([scene_case(name, truth, "pose", real=real) for name, truth in found.items()], [TaskJudge(found)])


def ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return the dial at auto, without and with regions that are looked for, the task `replace`, and the rivals."""
    source = source_of(real)
    return [
        Setting("auto", source=source, call={"strength": "auto"}),
        Setting("auto, where it changes", source=source, region="change", call={"strength": "auto"}),
        Setting("auto, where it was and will be", source=source, region="rewritten", call={"strength": "auto"}),
        Setting("replace", source=source, call={"task": "replace"}),
        Setting("vital", source=source),
        Setting("re-prompting", source=source, edit={"layers": []}),
    ]


ROWS.register("pose")(
    Row(
        cases, ways, ("edited", "hidden_kept", "told_kept", "psnr_outside", "psnr_target", "iou"),
        {"edited": 0.95, "hidden_kept": 0.9},
    )
)  # fmt: skip
