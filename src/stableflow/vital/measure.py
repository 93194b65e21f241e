"""Vitality: bypass each layer and see how much the picture changes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.files import write_text_atomic
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.interventions import Bypass
from stableflow.models.base import Conditioning, FlowModel
from stableflow.types import Images

Similarity = Callable[[Images, Images], Float[Tensor, " batch"]]
"""How alike two pictures are, row by row; 1 is identical."""


@dataclass(frozen=True, eq=False)
class Vitality:
    """How much the picture depends on each layer.

    Args:
        scores: 1 - similarity of the picture with the layer bypassed to the reference, (layers, prompts).
        checkpoint: Of the model that was measured.
    """

    scores: Float[Tensor, "layers prompts"]
    checkpoint: str

    @property
    def mean(self) -> Float[Tensor, " layers"]:
        """The vitality of each layer."""
        return self.scores.mean(dim=1)

    def top(self, count: int) -> tuple[int, ...]:
        """Return the `count` most vital layers, in execution order."""
        return tuple(sorted(self.mean.argsort(descending=True)[:count].tolist()))

    def above(self, threshold: float) -> tuple[int, ...]:
        """Return the layers of at least this vitality: the paper's V = { l : vitality(l) >= threshold }."""
        return tuple(torch.nonzero(self.mean >= threshold).flatten().tolist())

    def save(self, path: str | Path) -> None:
        """Write means and per-prompt scores as JSON."""
        content = {"checkpoint": self.checkpoint, "mean": self.mean.tolist(), "scores": self.scores.tolist()}
        write_text_atomic(path, json.dumps(content, indent=1) + "\n")


def measure_vitality(
    model: FlowModel,
    prompts: Sequence[str],
    *,
    similarity: Similarity | None = None,
    num_steps: int = 15,
    guidance_scale: float | None = None,
    first_seed: int = 0,
) -> Vitality:
    """Measure every layer on every prompt, prompt i with seed first_seed + i in all of its runs.

    Cost: (layers + 1) x num_steps model evaluations of one row a prompt; prompts run as one batch.

    Args:
        prompts: Diverse; the paper uses 64.
        similarity: Of decoded pictures; None compares pixels by `pixel_similarity`, which needs no weights.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, measuring the effect of a layer. The paper's
    similarity is the DINOv2 cosine.
    """
    if not prompts:
        raise InputError("Measuring needs at least one prompt; the paper uses 64 diverse ones.")
    similarity = similarity or pixel_similarity
    conditioning = model.encode_prompt(list(prompts))
    reference = _draw(model, conditioning, (), num_steps, guidance_scale, first_seed)
    rows = []
    for layer in range(len(model.layers)):
        bypassed = _draw(model, conditioning, (layer,), num_steps, guidance_scale, first_seed)
        rows.append(1 - similarity(bypassed, reference))
    return Vitality(torch.stack(rows), model.checkpoint_hash())


def pixel_similarity(a: Images, b: Images) -> Float[Tensor, " batch"]:
    """Return 1 - RMS difference of the pixels; 1 is identical, 0 black against white."""
    return 1 - (a - b).square().flatten(1).mean(1).sqrt()


def feature_similarity(features: Callable[[Images], Float[Tensor, "batch dim"]]) -> Similarity:
    """Return the cosine similarity of an encoder's features, such as DINOv2's."""

    @torch.no_grad()
    def similarity(a: Images, b: Images) -> Float[Tensor, " batch"]:
        return F.cosine_similarity(features(a), features(b))

    return similarity


def _draw(
    model: FlowModel,
    conditioning: Conditioning,
    bypassed: Sequence[int],
    num_steps: int,
    guidance_scale: float | None,
    first_seed: int,
) -> Images:
    height, width = model.default_size
    shape = model.latent_shape(height, width)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(first_seed + i)) for i in range(len(conditioning))]
    ).to(model.device)

    def velocity(latents: Tensor, t: float) -> Tensor:
        return model.velocity(latents, t, conditioning, guidance_scale=guidance_scale)

    with model.attach(Bypass(bypassed)):
        latents = integrate(velocity, noise, model.time_grid(num_steps, height, width), Euler())
    return model.decode_latents(latents).cpu()
