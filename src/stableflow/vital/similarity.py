"""How alike the picture with a layer bypassed is to the reference: plug-ins by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.metrics.card import Metric
from stableflow.metrics.clip import Clip, ClipImage
from stableflow.metrics.dino import Dino, DinoCls, DinoPatch
from stableflow.metrics.lpips import LPIPS
from stableflow.metrics.pixels import ssim
from stableflow.models.load import bundled_path
from stableflow.registry import Registry
from stableflow.types import Images, Latents

BUNDLED_ENCODERS = {"tiny-dinov2": "dinov2", "tiny-clip": "clip"}


@dataclass(frozen=True)
class Drawn:
    """Pictures as a model drew them, one a row."""

    latents: Latents
    images: Images


Compare = Callable[[Drawn, Drawn], Float[Tensor, " batch"]]


@dataclass(frozen=True)
class Similarity:
    """A named similarity; 1 is identical.

    Args:
        name: Which one, with the encoder and a hash of its weights where it has any.
        compare: Row by row.
    """

    name: str
    compare: Compare


SIMILARITIES: Registry[Callable[..., Similarity]] = Registry("similarity")
"""From a name to a function of the encoder (folder or hub id; ignored where none is needed) and `offline`."""


@SIMILARITIES.register("dino_cls")
def dino_cls(encoder: str, *, offline: bool = False) -> Similarity:
    """Cosine of DINOv2's CLS tokens."""
    return _of_metric(DinoCls(Dino.load(_located(encoder), offline=offline)))


@SIMILARITIES.register("dino_patch")
def dino_patch(encoder: str, *, offline: bool = False) -> Similarity:
    """Mean cosine of DINOv2's patch tokens, place by place."""
    return _of_metric(DinoPatch(Dino.load(_located(encoder), offline=offline)))


@SIMILARITIES.register("clip_img")
def clip_img(encoder: str, *, offline: bool = False) -> Similarity:
    """Cosine of CLIP's image embeddings; the encoder is a CLIP."""
    return _of_metric(ClipImage(Clip.load(_located(encoder), offline=offline)))


@SIMILARITIES.register("lpips")
def lpips(encoder: str, *, offline: bool = False) -> Similarity:
    """1 - LPIPS; the encoder is a folder with trunk.safetensors and linear.safetensors."""
    metric = LPIPS.load(Path(encoder) / "trunk.safetensors", Path(encoder) / "linear.safetensors")
    return Similarity(f"lpips ({metric.card.weights})", lambda a, b: 1 - metric(b.images, a.images))


@SIMILARITIES.register("ssim")
def structural(encoder: str, *, offline: bool = False) -> Similarity:
    """SSIM of the pixels."""
    return Similarity("ssim", lambda a, b: ssim(b.images, a.images))


@SIMILARITIES.register("latent_cosine")
def latent_cosine(encoder: str, *, offline: bool = False) -> Similarity:
    """Cosine of the final latents."""
    return Similarity("latent_cosine", lambda a, b: F.cosine_similarity(a.latents.flatten(1), b.latents.flatten(1)))


@SIMILARITIES.register("latent_rms")
def latent_rms(encoder: str, *, offline: bool = False) -> Similarity:
    """1 - RMS difference of the final latents, in units of the reference's deviation."""

    def compare(a: Drawn, b: Drawn) -> Tensor:
        error = (a.latents - b.latents).square().flatten(1).mean(1).sqrt()
        return 1 - error / b.latents.flatten(1).std(1)

    return Similarity("latent_rms", compare)


@SIMILARITIES.register("pixels")
def pixels(encoder: str, *, offline: bool = False) -> Similarity:
    """1 - RMS difference of the pixels."""
    return Similarity("pixels", lambda a, b: 1 - (a.images - b.images).square().flatten(1).mean(1).sqrt())


def _located(encoder: str) -> str | Path:
    return bundled_path(BUNDLED_ENCODERS[encoder]) if encoder in BUNDLED_ENCODERS else encoder


def _of_metric(metric: Metric) -> Similarity:
    card = metric.card
    return Similarity(f"{card.name} ({card.backbone}, {card.weights})", lambda a, b: metric(b.images, a.images))
