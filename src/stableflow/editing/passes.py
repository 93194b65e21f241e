"""What every editor does around its passes of the model: draw noise, count evaluations, decode."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.models.base import Conditioning, Differentiable, FlowModel, Guidance
from stableflow.types import Images, Latents


class CountedVelocity:
    """The model's velocity under one conditioning, counting evaluations."""

    def __init__(self, model: FlowModel, conditioning: Conditioning, guidance_scale: Guidance):
        self._model = model
        self._conditioning = conditioning
        self._guidance_scale = guidance_scale
        self.nfe = 0

    def __call__(self, latents: Tensor, t: float) -> Tensor:
        self.nfe += 1
        return self._model.velocity(latents, t, self._conditioning, guidance_scale=self._guidance_scale)


def standard_noise(generator: torch.Generator, shape: Sequence[int], device: torch.device) -> Latents:
    """Return the next noise of a CPU generator: the same on every device."""
    return torch.randn(tuple(shape), generator=generator).to(device)


def decode(model: FlowModel, latents: Latents, size: Sequence[int]) -> Images:
    """Return pictures on the CPU, cut to (height, width)."""
    height, width = size
    return model.decode_latents(latents)[..., :height, :width].cpu()


def dtype_name(model: FlowModel) -> str:
    """Return the compute type as fingerprints write it."""
    return str(model.dtype).removeprefix("torch.")


def require_same_model(model: FlowModel, source: Source) -> None:
    """Raise FingerprintError unless the source was made with this checkpoint in this type."""
    source.fingerprint.require(checkpoint=model.checkpoint_hash(), dtype=dtype_name(model))


def differentiable(model: FlowModel) -> Differentiable:
    """Return the model, through whose passes gradients go.

    Raises:
        InputError: They do not.
    """
    if not isinstance(model, Differentiable):
        raise InputError(f"This editor follows gradients, and {model.name} gives none: it has no velocity_with_grad.")
    return model


def laid_over(
    ground: Float[Tensor, "1 *shape"], edits: Float[Tensor, "edits *shape"], free: Float[Tensor, "edits *mask"]
) -> Latents:
    """Lay edits over the ground by their regions, later ones on top; every row goes on from what results.

    So each prompt sees, at the next step, what the others have made of their regions, and seams heal: this is
    MultiDiffusion's fusion with masks, in one batch. A row's own idea of the outside of its region is given up.
    """
    for edit, region in zip(edits.split(1), free.split(1)):
        ground = torch.lerp(ground, edit, region)
    return ground.expand_as(edits)
