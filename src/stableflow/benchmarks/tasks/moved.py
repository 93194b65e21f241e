"""What is true of a moved figure, and how a move is judged by it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import HIGHEST_PSNR, Source
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.metrics.figure import FigureFinder, overlap
from stableflow.metrics.pixels import psnr
from stableflow.models.bundled import bundled_path
from stableflow.region import Region
from stableflow.scenes import Scene, changed_region, silhouette
from stableflow.types import Images

Place = tuple[float, float, float]
NEAR = 2.5  # pixels within which a figure is where it should be
NOWHERE = (-9.0, 0.93, 1.0)


@dataclass(frozen=True)
class Moved:
    """A scene whose figure goes from one place to another.

    Args:
        place, goal: x, height of the feet and scale; None where the picture is drawn and nobody knows.
        by: Pixels to the right and down, where that is all that is known.
    """

    scene: Scene
    place: Place | None
    goal: Place | None
    by: tuple[float, float] = (0.0, 0.0)

    @property
    def before(self) -> Scene:
        return dataclasses.replace(self.scene, stands=self.place)

    @property
    def after(self) -> Scene:
        return dataclasses.replace(self.scene, stands=self.goal)

    @cached_property
    def thing(self) -> Bool[Tensor, "height width"]:
        """The pixels that the figure and its shadow touch."""
        return changed_region(self.before, dataclasses.replace(self.scene, stands=NOWHERE))

    @cached_property
    def there(self) -> Bool[Tensor, "height width"]:
        """Those that they touch at their goal."""
        return changed_region(self.after, dataclasses.replace(self.scene, stands=NOWHERE))


class MoveJudge:
    """The figures of a move or a resize.

    there: 1 where the middle of the figure found in the edit is within 2.5 pixels of the true one; of a drawn picture,
        of the one found in the source, moved as asked.
    kept: share of the properties, named and hidden, the side apart, read as on the true move; of a drawn picture, as on
        the source.
    ghost: share of the pixels that were left in which a figure is still found.
    iou: overlap of the figure found with the true one's silhouette.
    psnr_target, psnr_outside: dB against the true move, and against the source outside both places.

    Args:
        truths: By case id.
    """

    card = None

    def __init__(self, truths: Mapping[str, Moved]):
        self._truths = truths
        self._classifier = AttributeClassifier.load(bundled_path("classifier"))
        self._finder = FigureFinder.load(bundled_path("figure"))

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        truth = self._truths[case.id]
        right = source if case.target is None else case.target[None]
        wanted, read = self._classifier.read(torch.cat([right, edits]))
        names = [name for name in wanted if name not in ("side", "position", "size")]
        figures = {"kept": sum(wanted[name] == read[name] for name in names) / len(names)}
        found = self._finder.masks(torch.cat([source, edits]))
        if case.target is None:
            goal = _middle(found[0]) + torch.tensor(truth.by)
        else:
            goal, figures = _middle(silhouette(truth.after)), figures | _of_pixels(truth, case.target, source, edits)
            left = truth.thing & ~_grown(truth.there)
            figures["iou"] = overlap(found[1], silhouette(truth.after))
            figures["ghost"] = float((found[1] & left).sum() / left.sum().clamp(min=1))
        figures["there"] = float((_middle(found[1]) - goal).norm() <= NEAR)
        return {name: [value] for name, value in figures.items()}


def _of_pixels(truth: Moved, target: Tensor, source: Source, edits: Images) -> dict[str, float]:
    outside = ~_grown(truth.thing | truth.there)
    pairs = {"psnr_target": (target[None], None), "psnr_outside": (source, outside)}
    return {name: psnr(a, edits, mask).clamp(max=HIGHEST_PSNR).item() for name, (a, mask) in pairs.items()}


def _middle(mask: Bool[Tensor, "height width"]) -> Tensor:
    """x and y; NaN, which is near to nothing, of an empty mask."""
    y, x = mask.nonzero().float().T
    return torch.stack([x.mean(), y.mean()])


def _grown(mask: Bool[Tensor, "height width"], by: int = 1) -> Bool[Tensor, "height width"]:
    return Region(mask[None].float()).grow(by).amount[0] > 0
