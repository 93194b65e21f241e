"""PIE-Bench's own figures, computed its way: pictures are blackened outside the part that is asked about, and then
compared as a whole, black included. This differs from a mean over the part, which `MetricJudge` takes."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import Judge, Source, Where
from stableflow.errors import InputError
from stableflow.metrics import LPIPS, MSE, PSNR, SSIM, Clip, ClipText, Keys, StructureDistance
from stableflow.metrics.card import Metric, MetricCard
from stableflow.types import Images


class BlackenedJudge:
    """A metric between pictures that are black outside a part.

    Args:
        name: The benchmark's name of the figure.
        where: Which part is looked at; "outside" is where the edit may not change anything.
    """

    def __init__(self, name: str, metric: Metric, where: Where):
        self._name, self._metric, self._where, self._card = name, metric, where, metric.card

    @property
    def card(self) -> MetricCard:
        return self._card

    def __call__(self, case: Case, source: Source, edits: Images) -> dict[str, list[float]]:
        before, after = (images * self._part(case, images) for images in (source.expand_as(edits), edits))
        prompts = [(case.prompt, edited) for edited in case.edits]
        return {self._name: self._metric(before, after, prompts=prompts).tolist()}

    def _part(self, case: Case, images: Images) -> Float[Tensor, "height width"] | float:
        if self._where == "whole":
            return 1.0
        if case.mask is None or case.mask.shape != images.shape[-2:]:
            raise InputError(f"Case {case.id!r} needs a mask of {tuple(images.shape[-2:])} pixels for {self._name}.")
        return (case.mask if self._where == "inside" else ~case.mask).to(images)


def pie_judges(clip: Clip, keys: Keys, lpips: LPIPS | None = None) -> Sequence[Judge]:
    """Return the judges of PIE-Bench's table, under its names; without LPIPS where its weights are not given.

    The structure distance is the plain one; the paper's tables give 1,000 times it.

    Source: Ju et al., "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code" (ICLR 2024),
    arXiv:2310.01506. The published figures use DINO ViT-B/8 for the structure and CLIP ViT-L/14.
    """
    judges = [
        BlackenedJudge("structure_distance", StructureDistance(keys), "whole"),
        BlackenedJudge("psnr_unedit_part", PSNR(), "outside"),
        BlackenedJudge("mse_unedit_part", MSE(), "outside"),
        BlackenedJudge("ssim_unedit_part", SSIM(), "outside"),
        BlackenedJudge("clip_similarity_target_image", ClipText(clip), "whole"),
        BlackenedJudge("clip_similarity_target_image_edit_part", ClipText(clip), "inside"),
    ]
    return judges if lpips is None else [*judges, BlackenedJudge("lpips_unedit_part", lpips, "outside")]
