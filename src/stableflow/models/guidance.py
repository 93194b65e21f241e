"""Guidance scales, one a row, and classifier-free guidance: v = v_uncond + scale (v_cond - v_uncond)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.models.base import Conditioning, Guidance
from stableflow.models.hooks import Branch
from stableflow.types import Latents

NEGATIVE = "negative_"  # what the names of a negative prompt's tensors start with
UNGUIDED = 1.0  # up to this scale the negative prompt has no say, as in the pipelines


@dataclass(frozen=True)
class Guided:
    """How a checkpoint is guided: by an embedded scale, classifier-free, or not at all.

    Args:
        scale: The usual one; None where the model takes none.
        embedded: The scale is an input of the transformer.
        classifier_free: A second branch, of the negative prompt, is run.
    """

    scale: float | None = None
    embedded: bool = False
    classifier_free: bool = False


def embedded(scale: float) -> Callable[[Any], Guided]:
    """By an embedded scale, where the transformer of the pipeline has a place for it."""
    return lambda pipeline: Guided(scale, embedded=True) if pipeline.transformer.config.guidance_embeds else Guided()


def classifier_free(scale: float) -> Callable[[Any], Guided]:
    """Classifier-free, whatever the checkpoint."""
    return lambda pipeline: Guided(scale, classifier_free=True)


def scale_rows(scale: Guidance, default: float | None, batch: int, device: torch.device) -> Float[Tensor, " batch"]:
    """Return the scale of every row; `default` is the model's own, used where none is given.

    Raises:
        InputError: There are neither one nor as many scales as rows.
    """
    chosen = default if scale is None else scale
    values = torch.as_tensor(UNGUIDED if chosen is None else chosen, dtype=torch.float32, device=device)
    if values.ndim and values.shape != (batch,):
        raise InputError(f"guidance_scale has {len(values)} values for {batch} rows; pass one, or one a row.")
    return values.expand(batch)


def branches_for(scale: Float[Tensor, " batch"], every_branch: bool) -> tuple[Branch, ...]:
    """Return the branches that a velocity needs: the unconditional one if any row is guided or a hook asks for it."""
    return ("conditional", "unconditional") if every_branch or bool((scale > UNGUIDED).any()) else ("conditional",)


def branch_tensors(conditioning: Conditioning, branch: Branch) -> dict[str, Tensor]:
    """Return what the transformer takes in this branch, by its own names.

    Raises:
        InputError: The unconditional branch was asked for and there is no negative prompt.
    """
    tensors = conditioning.tensors
    if branch == "conditional":
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(NEGATIVE)}
    negative = {name.removeprefix(NEGATIVE): tensor for name, tensor in tensors.items() if name.startswith(NEGATIVE)}
    if not negative:
        raise InputError(
            "Classifier-free guidance needs a negative prompt, and this conditioning holds none (tensors named "
            f"{NEGATIVE}..., got {sorted(tensors)}). Take it from model.encode_prompt, or use guidance_scale=1."
        )
    return negative


def takes_negative(conditioning: Conditioning) -> bool:
    """Whether what a model makes of a prompt comes with a negative one: whether it is guided classifier-free."""
    return any(name.startswith(NEGATIVE) for name in conditioning.tensors)


def tensors_of(conditioning: Conditioning, branches: Sequence[Branch]) -> Mapping[str, Tensor]:
    """Return what the transformer takes in a pass of these branches, stacked along the batch in their order."""
    own = [Conditioning((), branch_tensors(conditioning, branch)) for branch in branches]
    return own[0].tensors if len(own) == 1 else Conditioning.concat(own).tensors


def guide(conditional: Latents, unconditional: Latents, scale: Float[Tensor, " batch"]) -> Latents:
    """Combine the branches, float32; a row at scale 1 or less is its conditional one, untouched.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, with diffusers' scale.
    """
    conditional, unconditional, scale = conditional.float(), unconditional.float(), scale.reshape(-1, 1, 1, 1)
    return torch.where(scale > UNGUIDED, unconditional + scale * (conditional - unconditional), conditional)
