"""Passes that compute some image tokens only: attention reads keys and values of the others that are given to it.

Blocks, processors and kernels stay diffusers' own. Before the first layer the other tokens are taken out of the image
stream, after the last one 0 takes their place; in between, the one call of `scaled_dot_product_attention` that every
attention makes gets more keys and values than there are queries. The order of keys does not matter to a softmax.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stableflow.errors import InterventionError
from stableflow.models.hooks import Layer, Supplier, TokenLayout

READ_BY = frozenset({"native", "_native_math", "_native_efficient", "_native_flash", "_native_cudnn"})
"""diffusers' names of the kernels that are one call of `scaled_dot_product_attention`."""


@dataclass(frozen=True)
class Pick:
    """Picks tokens of a sequence along `dim`; its image tokens begin at `first`, by default where attention has them.

    Args:
        take: `Division.keep` or `Division.leave`.
        start: Position of the first image token in the sequence that attention runs over.
    """

    take: Callable[[Tensor, int, int], Tensor]
    start: int

    def __call__(self, values: Tensor, dim: int = 0, first: int | None = None) -> Tensor:
        return self.take(values, dim, self.start if first is None else first)


@dataclass(frozen=True)
class Outside:
    """How a family's attention reads image tokens that are not in its pass.

    Args:
        picked: From (keyword arguments of the attention, picker) to those of the tokens picked: positions, masks.
        placed: From (attention, keys, keyword arguments of their tokens) to what the kernel gets: QK norm, positions.
    """

    picked: Callable[[Mapping[str, Any], Pick], Mapping[str, Any]]
    placed: Callable[
        [Any, Float[Tensor, "batch tokens heads head_dim"], Mapping[str, Any]],
        Float[Tensor, "batch tokens heads head_dim"],
    ]


def rotary_picked(kwargs: Mapping[str, Any], pick: Pick) -> Mapping[str, Any]:
    """FLUX's positions: a cosine and a sine for each token of the joint sequence."""
    return {**kwargs, "image_rotary_emb": tuple(pick(part) for part in kwargs["image_rotary_emb"])}


def rotary_placed(attention: Any, keys: Tensor, kwargs: Mapping[str, Any]) -> Any:
    from diffusers.models.embeddings import apply_rotary_emb  # late: seconds

    return apply_rotary_emb(attention.norm_k(keys), kwargs["image_rotary_emb"], sequence_dim=1)


text_first = Outside(rotary_picked, rotary_placed)
"""The usual: as FLUX's attention, text, then image, both rotated as one sequence."""


def instead(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Have `forward(replaced, *args, **kwargs)` run in place of a module's own; returns what undoes it."""
    replaced, own = module.forward, "forward" in vars(module)  # accelerate may have put one there before us
    module.forward = partial(forward, replaced)

    def restore() -> None:
        if own:
            module.forward = replaced
        else:
            del module.forward

    return restore


def read_outside(attentions: Sequence[Any], reading: Outside, supplier: Supplier) -> Callable[[], None]:
    """Have the attentions of a block read what the supplier gives; returns what takes it off again."""
    stack = ExitStack()
    for number, attention in enumerate(attentions):
        stack.callback(instead(attention, partial(_read, attention, number, reading, supplier)))
    return stack.close


def _read(
    attention: Any,
    number: int,
    reading: Outside,
    supplier: Supplier,
    replaced: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """One pass of an attention over the tokens at hand and those left out."""
    outside = supplier(number, _stream(args, kwargs))
    keep, leave = (Pick(take, outside.first) for take in (outside.division.keep, outside.division.leave))
    keys, values = (part.unflatten(-1, (attention.heads, -1)) for part in (outside.keys, outside.values))
    keys = reading.placed(attention, keys, reading.picked(kwargs, leave))
    with _MoreToRead(keys.transpose(1, 2), values.transpose(1, 2), outside.first) as more:
        output = replaced(*args, **reading.picked(kwargs, keep))
    if more.calls != 1:
        raise InterventionError(
            f"An attention called scaled_dot_product_attention {more.calls} times instead of once, so it cannot read "
            "image tokens that are not computed. Load the model without attention_backend, or edit with compute='all'."
        )
    return output


class _MoreToRead(TorchFunctionMode):
    """In its block, the kernel gets more keys and values; there is a mask for them if there is one for the others."""

    def __init__(
        self,
        keys: Float[Tensor, "#rows heads left_out head_dim"],
        values: Float[Tensor, "#rows heads left_out head_dim"],
        first: int,
    ):
        super().__init__()
        self._keys, self._values, self._first = keys, values, first
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        return self._attend(*args, **(kwargs or {}))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        key, value = _joined(key, self._keys), _joined(value, self._values)
        if attn_mask is not None:  # what holds for one image token holds for all
            image = attn_mask[..., self._first : self._first + 1].expand(*attn_mask.shape[:-1], self._keys.shape[2])
            attn_mask = torch.cat([attn_mask, image], dim=-1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask, *args, **kwargs)


def _joined(
    own: Float[Tensor, "rows heads tokens head_dim"], more: Float[Tensor, "#rows heads left_out head_dim"]
) -> Float[Tensor, "rows heads all_tokens head_dim"]:
    """One after the other, token by token in memory, as most kernels' inputs are: then both are copied in one go."""
    tokens_first = [part.transpose(1, 2) for part in (own, more.expand(len(own), -1, -1, -1))]
    return torch.cat(tokens_first, dim=1).transpose(1, 2)


@contextmanager
def thinned(layers: Sequence[Layer], layout: TokenLayout) -> Iterator[None]:
    """Surround one pass of the transformer whose layers compute only some image tokens, as the layout says."""
    division = layout.division
    assert division is not None
    first, last = layers[0], layers[-1]

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        joint = isinstance(first.identity(args, kwargs), Tensor)
        fewer = division.keep(_stream(args, kwargs), 1, layout.image_start[first.kind] if joint else 0)
        return (args, {**kwargs, "hidden_states": fewer}) if "hidden_states" in kwargs else ((fewer, *args[1:]), kwargs)

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        untouched = last.identity(args, kwargs)  # tells what the block returns
        if isinstance(untouched, Tensor):
            return division.restore(output, 1, layout.image_start[last.kind])
        stream = _stream(args, kwargs)
        return tuple(division.restore(new, 1, 0) if old is stream else new for old, new in zip(untouched, output))

    with ExitStack() as stack:
        stack.callback(first.block.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(last.block.register_forward_hook(after, with_kwargs=True).remove)
        yield


def _stream(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The image stream, or the joint one, of a block's or an attention's call."""
    return kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
