"""Structure distance: do the parts of both pictures stand to each other in the same way?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stableflow.errors import LoadError
from stableflow.metrics.backbone import Backbone, load_backbone
from stableflow.metrics.card import METRICS, Mask, MetricCard, PromptPairs
from stableflow.metrics.inputs import blackened, check_pair, mask_weights, nothing_to_nan
from stableflow.types import Images

EXAMPLE = "facebook/dino-vitb8"
PREPROCESSING = "resize, centre crop and normalisation of the backbone's preprocessor_config.json"


@dataclass(frozen=True, eq=False)
class Keys:
    """A vision transformer (DINO's ViT, DINOv2) read at the keys of its last attention."""

    backbone: Backbone

    @staticmethod
    def load(name: str | Path, *, device: str = "cpu", offline: bool = False) -> "Keys":
        """Load from a local folder or a hub id; the paper's is facebook/dino-vitb8.

        Raises:
            LoadError: Files or weights are missing, the hub cannot be reached, or it has no key projection.
        """
        from transformers import AutoModel

        backbone = load_backbone(AutoModel, name, example=EXAMPLE, device=device, offline=offline, unused=("pooler.",))
        _last_key_projection(backbone.model, backbone.name)
        return Keys(backbone)

    @torch.no_grad()
    def self_similarity(self, images: Images) -> Float[Tensor, "batch tokens tokens"]:
        """Return S_ij = cos(k_i, k_j) over all tokens, CLS included, all heads joined."""
        keys: list[Any] = []
        model = self.backbone.model
        projection = _last_key_projection(model, self.backbone.name)
        handle = projection.register_forward_hook(lambda module, args, output: keys.append(output))
        try:
            model(pixel_values=self.backbone.preprocessing(images.to(self.backbone.device, torch.float32)))
        finally:
            handle.remove()
        unit = F.normalize(keys[-1], dim=-1)
        return (unit @ unit.transpose(1, 2)).cpu()


@METRICS.register("structure")
@dataclass(frozen=True, eq=False)
class StructureDistance:
    """||S(source) - S(edit)||^2 / tokens^2, the squared Frobenius norm as a mean over pairs of tokens.

    Source: Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer" (CVPR 2022), arXiv:2201.00424,
    the structure loss, which is the norm itself; Ju et al., PIE-Bench (arXiv:2310.01506), reports 1000 times the mean
    square.
    """

    keys: Keys
    facts: ClassVar = MetricCard(
        "structure", 0.0, 4.0, False, PREPROCESSING, "black outside the mask, in both pictures"
    )

    @property
    def card(self) -> MetricCard:
        return self.keys.backbone.on(self.facts)

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        weights = mask_weights(mask, source)
        before, after = (self.keys.self_similarity(blackened(images, weights)) for images in (source, edit))
        return nothing_to_nan((before - after).square().mean((1, 2)), weights)


def _last_key_projection(model: Any, name: str) -> nn.Module:
    found = [module for path, module in model.named_modules() if path.rsplit(".", 1)[-1] in ("k_proj", "key")]
    if not found:
        raise LoadError(f"{name} is a {type(model).__name__} without a key projection; use a ViT such as {EXAMPLE!r}.")
    return found[-1]
