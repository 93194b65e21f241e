"""Where a block's keys and values leave their projections, and what the kernel of its attention gets."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stableflow.errors import InterventionError
from stableflow.models.hooks import AttentionObserver, Part, Projection, Stream


def attention_of(block: Any) -> list[Any]:
    """Return the attention of a block that has one, by diffusers' usual name."""
    return [block.attn]


def projections_of(attentions: Sequence[Any], index: int, part: Part) -> tuple[Projection, ...]:
    """Return `to_k` or `to_v` of the attention modules of layer `index`.

    Raises:
        InterventionError: Their projections are fused, so these modules are not run.
    """
    if any(getattr(attention, "fused_projections", False) for attention in attentions):
        raise InterventionError(
            f"Layer {index} has fused QKV projections, so its keys and values never pass through to_k and to_v. Call "
            "pipeline.transformer.unfuse_qkv_projections() before editing."
        )
    return tuple(Projection(attention.to_k if part == "key" else attention.to_v) for attention in attentions)


def text_and_image(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The identity of blocks that return both streams, text first."""
    return kwargs["encoder_hidden_states"], kwargs["hidden_states"]


def joint_stream(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The identity of blocks that take and return one stream."""
    return kwargs["hidden_states"]


BEFORE_ATTENTION: Mapping[Stream, tuple[str, str]] = {
    "text": ("norm_added_{}", "add_{}_proj"),
    "image": ("norm_{}", "to_{}"),
}
"""Names of the QK norm and, where an attention has none, the projection that a stream's queries or keys leave last."""


def watch_streams(
    attention: Any,
    observer: AttentionObserver,
    *,
    streams: Sequence[Stream],
    join: Callable[[Sequence[Tensor], Mapping[str, Any]], Float[Tensor, "batch tokens heads head_dim"]],
    mask: Callable[[Mapping[str, Any]], Tensor | None],
) -> Callable[[], None]:
    """Have an observer told, at the end of every pass of an attention, of what its kernel got.

    Args:
        streams: What the attention runs over, in the order of the joint sequence; "image" alone in single layers.
        join: From the streams' queries or keys, as they left the norm or projection, and the keyword arguments of the
            attention to the joint sequence, with position encoding.
        mask: From the keyword arguments to the mask of the joint sequence that the kernel takes.

    Returns:
        What takes everything off again.
    """
    left: dict[tuple[Stream, str], Tensor] = {}
    this_pass = ExitStack()

    def keep(name: tuple[Stream, str], module: Any, args: Any, output: Tensor) -> None:
        left[name] = output

    def begin(module: Any, args: Any) -> None:
        this_pass.close()  # of a pass that an error ended
        for stream in streams:
            for part in "qk":
                # Set anew in every pass: after the hooks of injection, whichever was attached first.
                hook = partial(keep, (stream, part))
                this_pass.callback(_last_module(attention, stream, part).register_forward_hook(hook).remove)

    def report(module: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        this_pass.close()
        queries, keys = (join([left[stream, part] for stream in streams], kwargs) for part in "qk")
        left.clear()
        observer(queries, keys, _bias(mask(kwargs)))

    watching = ExitStack()
    watching.callback(this_pass.close)
    watching.callback(attention.register_forward_pre_hook(begin).remove)
    watching.callback(attention.register_forward_hook(report, with_kwargs=True).remove)
    return watching.close


def watch_text_first(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Watch an attention that works as FLUX's: text, then image, both rotated as one sequence."""
    streams: list[Stream] = ["image"] if getattr(attention, "added_kv_proj_dim", None) is None else ["text", "image"]

    from diffusers.models.embeddings import apply_rotary_emb

    def join(parts: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Any:
        return apply_rotary_emb(torch.cat(list(parts), dim=1), kwargs["image_rotary_emb"], sequence_dim=1)

    def mask(kwargs: Mapping[str, Any]) -> Tensor | None:
        return kwargs.get("attention_mask")

    return watch_streams(attention, observer, streams=streams, join=join, mask=mask)


def _last_module(attention: Any, stream: Stream, part: str) -> nn.Module:
    norm, projection = (name.format(part) for name in BEFORE_ATTENTION[stream])
    return getattr(attention, norm, None) or getattr(attention, projection)


def _bias(mask: Tensor | None) -> Tensor | None:
    """What the kernel adds: a mask of booleans forbids where it is false, any other is added as it is."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
