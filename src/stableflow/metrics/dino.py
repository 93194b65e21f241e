"""DINOv2 similarity: of the whole picture (CLS token) and place by place (patches)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.metrics.backbone import Backbone, load_backbone
from stableflow.metrics.card import METRICS, Mask, MetricCard, PromptPairs
from stableflow.metrics.inputs import blackened, check_pair, mask_weights, masked_mean, nothing_to_nan, share_of_cells
from stableflow.types import Images

EXAMPLE = "facebook/dinov2-base"
PREPROCESSING = "resize, centre crop and normalisation of the backbone's preprocessor_config.json"


@dataclass(frozen=True, eq=False)
class Dino:
    """A DINOv2 model."""

    backbone: Backbone

    @staticmethod
    def load(name: str | Path, *, device: str = "cpu", offline: bool = False) -> "Dino":
        """Load from a local folder or a hub id.

        Raises:
            LoadError: Files or weights are missing, or the hub cannot be reached.
        """
        from transformers import Dinov2Model

        return Dino(load_backbone(Dinov2Model, name, example=EXAMPLE, device=device, offline=offline))

    def embed(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the CLS token of pictures in [0, 1] of any size."""
        return self._tokens(images)[:, 0]

    def patches(self, images: Images) -> Float[Tensor, "batch dim patch_rows patch_columns"]:
        """Return the patch tokens of pictures in [0, 1] of any size."""
        rows = self.backbone.preprocessing(images[:1]).shape[-2] // self.backbone.model.config.patch_size
        return rearrange(self._tokens(images)[:, 1:], "batch (rows columns) dim -> batch dim rows columns", rows=rows)

    @torch.no_grad()
    def _tokens(self, images: Images) -> Float[Tensor, "batch tokens dim"]:
        pixels = self.backbone.preprocessing(images.to(self.backbone.device, torch.float32))
        return self.backbone.model(pixel_values=pixels).last_hidden_state.cpu()


@METRICS.register("dino_cls")
@dataclass(frozen=True, eq=False)
class DinoCls:
    """Cosine of the CLS tokens: is it the same picture as a whole?"""

    dino: Dino
    facts: ClassVar = MetricCard("dino_cls", -1.0, 1.0, True, PREPROCESSING, "black outside the mask, in both pictures")

    @property
    def card(self) -> MetricCard:
        return self.dino.backbone.on(self.facts)

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        weights = mask_weights(mask, source)
        before, after = (self.dino.embed(blackened(images, weights)) for images in (source, edit))
        return nothing_to_nan(F.cosine_similarity(before, after), weights)


@METRICS.register("dino_patch")
@dataclass(frozen=True, eq=False)
class DinoPatch:
    """Mean over places of the cosine of the patch tokens there: is the same thing at the same place?"""

    dino: Dino
    facts: ClassVar = MetricCard(
        "dino_patch", -1.0, 1.0, True, PREPROCESSING, "mean over patches, weighted by the mask's share of each"
    )

    @property
    def card(self) -> MetricCard:
        return self.dino.backbone.on(self.facts)

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        weights = mask_weights(mask, source)
        cosine = F.cosine_similarity(self.dino.patches(source), self.dino.patches(edit))[:, None]
        if weights is None:
            return masked_mean(cosine, None)
        seen = self.dino.backbone.preprocessing.place(weights)  # the mask goes where the pixels went
        return masked_mean(cosine, share_of_cells(seen, *cosine.shape[-2:]))
