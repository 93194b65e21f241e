"""Who says how good an edit is: metrics for any case, ground truth for scenes."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.scene_edits import SceneEdit
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.metrics.card import Metric, MetricCard
from stableflow.metrics.pixels import psnr, ssim
from stableflow.scenes import HIDDEN
from stableflow.types import Images

Source = Float[Tensor, "1 3 height width"]
Where = Literal["whole", "inside", "outside"]
HIGHEST_PSNR = 60.0  # dB; equal pictures have no finite one


@runtime_checkable
class Judge(Protocol):
    """Gives figures for the edits of one case."""

    @property
    def card(self) -> MetricCard | None:
        """Of the metric behind it, if that is all it is."""
        ...

    def __call__(self, case: Case, source: Source, edits: Images) -> Mapping[str, Sequence[float]]:
        """Return one value an edit for each figure; `source` is one picture, (1, 3, height, width)."""
        ...


class MetricJudge:
    """A metric over the whole picture, or inside or outside a case's mask; nothing where a case has no mask."""

    def __init__(self, metric: Metric, where: Where = "whole"):
        self._metric, self._where = metric, where
        self._card = metric.card

    @property
    def card(self) -> MetricCard:
        return self._card

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        if self._where == "whole":
            mask, name = None, self.card.name
        elif case.mask is None:
            return {}
        else:
            mask, name = case.mask if self._where == "inside" else ~case.mask, f"{self.card.name}_{self._where}"
        prompts = [(case.prompt, edited) for edited in case.edits]
        return {name: self._metric(source.expand_as(edits), edits, prompts=prompts, mask=mask).tolist()}


class SceneJudge:
    """The ground truth of a scene: was the word obeyed, what was kept, how far is it from the true edit?

    edited: 1 where the classifier reads the new value.
    told_kept, hidden_kept: share of the other captioned and of the hidden properties read as on the source.
    psnr, ssim: of the edit against the source, outside the changed region where that is known; NaN if it is all.
    psnr_target: of the edit against the true edit, where that is known.
    """

    card = None

    def __init__(self, edits: Mapping[str, SceneEdit], classifier: AttributeClassifier):
        self._edits, self._classifier = edits, classifier

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        edit = self._edits[case.id]
        before, after = (self._classifier.read(images)[0] for images in (source, edits))
        others = [name for name in before if name not in (*HIDDEN, edit.attribute)]
        outside = None if case.mask is None else ~case.mask
        figures = {
            "edited": float(after[edit.attribute] == getattr(edit.target, edit.attribute)),
            "told_kept": _share([before[name] == after[name] for name in others]),
            "hidden_kept": _share([before[name] == after[name] for name in HIDDEN]),
            "psnr": _finite(psnr(source, edits, outside)),
            "ssim": ssim(source, edits, outside).item(),
        }
        if case.target is not None:
            figures["psnr_target"] = _finite(psnr(case.target[None], edits))
        return {name: [value] for name, value in figures.items()}


def _share(same: Sequence[bool]) -> float:
    return sum(same) / len(same)


def _finite(values: Tensor) -> float:
    return values.clamp(max=HIGHEST_PSNR).item()  # NaN, where a mask leaves nothing to compare, stays
