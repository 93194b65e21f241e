"""How an edit of a scene is judged by what is true of it."""

from collections.abc import Mapping, Sequence

import torch

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import HIGHEST_PSNR, Source
from stableflow.benchmarks.tasks.scenes import Truth
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.metrics.figure import FigureFinder, overlap
from stableflow.metrics.pixels import psnr
from stableflow.models.bundled import bundled_path
from stableflow.region import Region
from stableflow.scenes import HIDDEN, silhouette
from stableflow.types import Images

SEAM = 5  # pixels: a hand draws 2 more than the region, and 3 fade
SUBJECT = ("subject", "colour", "pose", "hat", "coat", "facing", "side")
"""What belongs to the figure: what is named and what no caption says."""


class TaskJudge:
    """The figures of any task over scenes.

    edited: 1 where the classifier reads every changed attribute as it should be.
    told_kept, hidden_kept: share of the other captioned and of the hidden properties read as on the source.
    subject_kept: share of the figure's properties, named and hidden, read as on the source.
    psnr_outside: dB against the source, outside the exactly changed region; NaN where that is not known.
    psnr_target: dB against the true edit.
    same_outside: share of the pixels farther than `SEAM` from that region that are the source's to the last bit.
    iou: overlap of the figure found in the edit with the true edit's silhouette; where that is not known, with the
        figure found in the source.
    shown: 1 where the source shows what is asked of it, by the classifier.

    Args:
        truths: By case id.
        hidden: Hidden properties that nobody asked to change.
    """

    card = None

    def __init__(self, truths: Mapping[str, Truth], *, hidden: Sequence[str] = tuple(HIDDEN)):
        self._truths, self._hidden = truths, tuple(hidden)
        self._classifier = AttributeClassifier.load(bundled_path("classifier"))
        self._finder = FigureFinder.load(bundled_path("figure"))

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        truth = self._truths[case.id]
        before, after = (self._classifier.read(images)[0] for images in (source, edits))
        others = [name for name in before if name not in (*HIDDEN, *truth.changed)]
        subject = [name for name in SUBJECT if name not in truth.changed]
        figures = {
            "edited": float(all(after[name] == getattr(truth.target, name) for name in truth.changed)),
            "told_kept": _share(before, after, others),
            "hidden_kept": _share(before, after, self._hidden),
            "subject_kept": _share(before, after, subject),
            "shown": float(all(before[name] == getattr(truth.source, name) for name in truth.changed)),
        }
        found = self._finder.masks(torch.cat([source, edits]))
        figures["iou"] = overlap(
            found[1], found[0] if case.target is None else silhouette(truth.target, edits.shape[-1])
        )
        if case.target is not None and case.mask is not None:
            figures["psnr_outside"] = _decibels(source, edits, ~case.mask)
            figures["psnr_target"] = _decibels(case.target[None], edits)
            far = Region(case.mask[None].float()).grow(SEAM).amount[0] == 0
            same = (edits[0] == source[0]).all(0)
            figures["same_outside"] = float((same & far).sum() / far.sum().clamp(min=1))
        return {name: [value] for name, value in figures.items()}


def _share(before: Mapping[str, str], after: Mapping[str, str], names: Sequence[str]) -> float:
    return sum(before[name] == after[name] for name in names) / len(names)


def _decibels(a: Images, b: Images, mask: torch.Tensor | None = None) -> float:
    return psnr(a, b, mask).clamp(max=HIGHEST_PSNR).item()
