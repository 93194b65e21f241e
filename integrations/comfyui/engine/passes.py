"""Where a model call belongs: what ComfyUI's wrappers and attention patches need to know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InterventionError

from .layers import Numbering
from .source import BRANCHES, Moment

PREFIX = "stableflow"
Heads = Float[Tensor, "batch heads tokens head_dim"]


@dataclass(eq=False)
class Pass:
    """One evaluation of the model by a sampler; it lives as long as the evaluation.

    Args:
        place: Its sigma, and how many evaluations at this sigma came before.
        moment: The source's evaluation that belongs to it, when editing.
        kept: Keys and values of the source read off the model for this evaluation, by branch and layer.
        acted: Whether any attention patch was called.
    """

    place: tuple[float, int]
    moment: Moment | None = None
    kept: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    acted: bool = False


def entering(model_options: dict[str, Any], key: str, now: Pass) -> dict[str, Any]:
    """Return the options of a model call with the pass in them, for wrappers and patches further in."""
    inner = {**model_options.get("transformer_options", {}), key: now}
    return {**model_options, "transformer_options": inner}


def count(model_options: dict[str, Any], key: str, sigma: float) -> int:
    """Return how many evaluations of this run had this sigma before; ComfyUI makes the options anew for each run."""
    visits = model_options.setdefault("transformer_options", {}).setdefault(f"{key}-visits", {})
    visits[sigma] = visits.get(sigma, 0) + 1
    return visits[sigma] - 1


def without_packs_own(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without any pass of ours: a source runs as it ran alone."""
    return {name: value for name, value in options.items() if not str(name).startswith(PREFIX)}


def branches(options: Mapping[str, Any]) -> list[str]:
    """Return the branch of each equal share of the rows, in order.

    Raises:
        InterventionError: The guider asks for more than a positive and a negative prompt.
    """
    numbers = options.get("cond_or_uncond", [0])
    if any(number >= len(BRANCHES) for number in numbers):
        raise InterventionError(
            "This guider runs three prompts at a time; use one with a positive and a negative prompt (KSampler, "
            "CFGGuider or BasicGuider)."
        )
    return [BRANCHES[number] for number in numbers]


def layer_of(options: Mapping[str, Any], numbering: Numbering) -> int:
    """Return the layer that an attention patch is called in, in execution order."""
    if "block_type" not in options or "img_slice" not in options:
        raise InterventionError(
            "This version of ComfyUI does not tell attention patches which layer they are in. Update ComfyUI: the pack "
            "is made for 0.19 and newer."
        )
    return numbering.index(options["block_type"], options["block_index"])


def flat(heads: Heads) -> Float[Tensor, "batch tokens dim"]:
    """Return keys or values as the library has them."""
    return rearrange(heads, "batch heads tokens head_dim -> batch tokens (heads head_dim)")


def in_heads(features: Float[Tensor, "batch tokens dim"], heads: int) -> Heads:
    """Undo `flat`."""
    return rearrange(features, "batch tokens (heads head_dim) -> batch heads tokens head_dim", heads=heads)


def grid_of(size: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Return rows and columns of image tokens for latents of this size; the last ones may be padded."""
    return -(-size[-2] // patch), -(-size[-1] // patch)
