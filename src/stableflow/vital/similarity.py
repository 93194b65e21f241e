"""How alike the picture with a layer bypassed is to the reference: plug-ins by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.registry import Registry
from stableflow.types import Images, Latents

DEFAULT_ENCODER = "facebook/dinov2-base"


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


SIMILARITIES: Registry[Callable[[str], Similarity]] = Registry("similarity")
"""From a name to a function of the encoder (folder or hub id; ignored where none is needed)."""


@SIMILARITIES.register("latent-cosine")
def latent_cosine(encoder: str) -> Similarity:
    """Cosine of the final latents."""
    return Similarity("latent-cosine", lambda a, b: F.cosine_similarity(a.latents.flatten(1), b.latents.flatten(1)))


@SIMILARITIES.register("latent-rms")
def latent_rms(encoder: str) -> Similarity:
    """1 - RMS difference of the final latents, in units of the reference's deviation."""

    def compare(a: Drawn, b: Drawn) -> Tensor:
        error = (a.latents - b.latents).square().flatten(1).mean(1).sqrt()
        return 1 - error / b.latents.flatten(1).std(1)

    return Similarity("latent-rms", compare)


@SIMILARITIES.register("pixels")
def pixels(encoder: str) -> Similarity:
    """1 - RMS difference of the pixels."""
    return Similarity("pixels", lambda a, b: 1 - (a.images - b.images).square().flatten(1).mean(1).sqrt())
