"""Held-out scenes of the synthetic world: edits whose right answer is known to the pixel."""

from collections.abc import Mapping

import torch

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.scene_edits import SceneEdit, scene_edits
from stableflow.scenes import changed_region, render

CATEGORIES: Mapping[str, str] = {
    "pose": "non-rigid",
    "companion": "object addition",
    "hat": "accessory",
    "place": "background",
    "colour": "colour",
    "subject": "object replacement",
    "time": "time of day",
    "removal": "removal",
    "style": "style",
    "sign": "text",
    "coat": "coat pattern",
    "position": "move",
    "size": "resize",
    "second": "second figure",
}
"""By the kind of edit."""


def load_scenes(count: int, *, real: bool, size: int = 64, layers: int = 2) -> tuple[list[Case], dict[str, SceneEdit]]:
    """Return cases, each kind of edit in turn, and the scenes behind them by case id.

    Args:
        real: The source is the scene's render, with the exact target and the exactly changed region; else it is drawn
            by the model from the caption, and only words and properties are known.
        size: Of the renders, in pixels.
        layers: Of the world: 2, or 3 for moves, resizes and second figures as well.
    """
    edits = {f"scene-{i:04d}": edit for i, edit in enumerate(scene_edits(count, layers))}
    return [_case(name, edit, real=real, size=size) for name, edit in edits.items()], edits


def _case(name: str, edit: SceneEdit, *, real: bool, size: int) -> Case:
    prompt, edited = edit.prompts
    shared = {"id": name, "prompt": prompt, "edits": (edited,), "category": CATEGORIES[edit.kind]}
    if not real:
        return Case(**shared, seed=edit.seed)
    region = changed_region(edit.source, edit.target, size)
    return Case(
        **shared,
        image=render(edit.source, size),
        mask=torch.ones_like(region) if edit.kind == "style" else region,  # a style changes all, alike by chance or not
        target=render(edit.target, size),
    )
