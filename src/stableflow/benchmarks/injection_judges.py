"""Who judges what injecting a layer does: the truth of a scene, or the model itself where there is no truth."""

import torch

from stableflow.benchmarks.by_injection import Pair
from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import SceneJudge, Source
from stableflow.benchmarks.scene_edits import SceneEdit, scene_edits
from stableflow.editing.leaning import leaning
from stableflow.editing.least import SHARE, moved, progress
from stableflow.editing.run import Run
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.bundled import bundled_path
from stableflow.types import Images, Latents


def by_model(pair: Pair, run: Run, source: Source, latents: Latents, edits: Images) -> dict[str, list[float]]:
    """Judge by the model, on any checkpoint.

    edited: the edit's `progress` towards the free one, at most 1. kept: 1 - |edit - source| / |free - source|, in
    latents, over the places that the free edit changes least: all but the `SHARE` that it changes most.
    """
    clean, free = run.clean, latents[:1]
    leanings = leaning(run, latents)
    start = leaning(run, run.rows(clean))
    gone = moved(latents, clean, free.expand_as(latents))
    made = progress(leanings, start, leanings[:1].expand_as(leanings), gone).clamp(0, 1)
    size = (free - clean).square().sum(1).flatten()
    rest = size <= size.quantile(1 - SHARE)
    change = (latents - clean).flatten(2)[..., rest].flatten(1).norm(dim=1)
    kept = 1 - change / change[0].clamp(min=1e-12)
    return {"edited": made.tolist(), "kept": kept.tolist()}


class ByTruth:
    """Judge by the classifier of the bundled world: was the word obeyed, are the hidden properties kept?"""

    def __init__(self, edits: dict[str, SceneEdit]):
        self._judge = SceneJudge(edits, AttributeClassifier.load(bundled_path("classifier")))

    def __call__(self, pair: Pair, run: Run, source: Source, latents: Latents, edits: Images) -> dict[str, list[float]]:
        case = Case(pair.id, pair.prompt, (pair.edited,), "edit", seed=pair.seed)
        rows = [self._judge(case, source, torch.as_tensor(edit)[None]) for edit in edits]
        return {
            "edited": [row["edited"][0] for row in rows],
            "kept": [row["hidden_kept"][0] for row in rows],
        }


def scene_pairs(count: int, *, first: int = 200) -> tuple[list[Pair], ByTruth]:
    """Return edits of scenes that no benchmark draws, one word each, styles and removals left out, and their judge."""
    found = [edit for edit in scene_edits(first + 3 * count)[first:] if edit.kind not in ("style", "removal")][:count]
    named = {f"{edit.seed:04d}": edit for edit in found}
    return [Pair(name, *edit.prompts, edit.seed) for name, edit in named.items()], ByTruth(named)
