"""How well generated pictures show what their captions say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.base import FlowModel
from stableflow.scenes import LAYERS, Scene, attributes, caption, sample_split
from stableflow.training.data import VALIDATION_SEED


def held_out_scenes(count: int, layers: int = 2) -> list[Scene]:
    """Return scenes of combinations that were never trained on."""
    return [sample_split(VALIDATION_SEED + i, held=True, layers=layers) for i in range(count)]


def draw_captions(
    model: FlowModel,
    captions: Sequence[str],
    *,
    num_steps: int,
    guidance_scale: float,
    seed: int,
    true_guidance: float | None = None,
    batch: int = 50,
) -> Tensor:
    """Return one picture a caption, (captions, 3, height, width) in [0, 1].

    Args:
        guidance_scale: What the model is told.
        true_guidance: Also guide by v_empty + scale (v_caption - v_empty), in two passes a step.
    """
    height, width = model.default_size
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(captions), *model.latent_shape(height, width), generator=generator)
    grid, parts = model.time_grid(num_steps, height, width), []
    for start in range(0, len(captions), batch):
        conditioning = model.encode_prompt(list(captions[start : start + batch]))

        empty = model.encode_prompt([""] * len(conditioning))

        def velocity(latents: Tensor, t: float, conditioning=conditioning, empty=empty) -> Tensor:
            told = model.velocity(latents, t, conditioning, guidance_scale=guidance_scale)
            if true_guidance is None:
                return told
            untold = model.velocity(latents, t, empty, guidance_scale=guidance_scale)
            return untold + true_guidance * (told - untold)

        latents = integrate(velocity, noise[start : start + batch].to(model.device), grid, Euler())
        parts.append(model.decode_latents(latents).cpu())
    return torch.cat(parts)


def caption_accuracy(
    model: FlowModel,
    classifier: AttributeClassifier,
    scenes: Sequence[Scene],
    *,
    num_steps: int = 15,
    guidance_scale: float = 3.5,
    true_guidance: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return the share of pictures on which the classifier reads what the full caption says, for every attribute.

    An attribute that a full caption passes over (no hat, no companion) counts as said to be absent.
    """
    captions = [caption(scene) for scene in scenes]
    images = draw_captions(
        model, captions, num_steps=num_steps, guidance_scale=guidance_scale, true_guidance=true_guidance, seed=seed
    )
    readings = [reading for part in images.split(100) for reading in classifier.read(part)]
    return {
        name: sum(reading[name] == getattr(scene, name) for reading, scene in zip(readings, scenes)) / len(scenes)
        for name in attributes(LAYERS[-1])
        if name in classifier.values
    }
