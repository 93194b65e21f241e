"""FLUX's joint attention written out in matrix products, for training on a CPU."""

from typing import Any

import torch
from torch import Tensor


class PlainAttention:
    """An attention processor equal to diffusers' own, whose backward pass is quicker on a CPU.

    Exported models do not carry it.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        def heads(features: Tensor) -> Tensor:
            return features.unflatten(-1, (attn.heads, attn.head_dim))

        query = _rms_norm(heads(attn.to_q(hidden_states)), attn.norm_q.weight)
        key = _rms_norm(heads(attn.to_k(hidden_states)), attn.norm_k.weight)
        value = heads(attn.to_v(hidden_states))
        if encoder_hidden_states is not None:
            text = encoder_hidden_states
            text_query = _rms_norm(heads(attn.add_q_proj(text)), attn.norm_added_q.weight)
            text_key = _rms_norm(heads(attn.add_k_proj(text)), attn.norm_added_k.weight)
            query = torch.cat([text_query, query], dim=1)
            key = torch.cat([text_key, key], dim=1)
            value = torch.cat([heads(attn.add_v_proj(text)), value], dim=1)
        assert image_rotary_emb is not None
        query = _rotate(query, *image_rotary_emb) * attn.head_dim**-0.5
        key = _rotate(key, *image_rotary_emb)
        weights = torch.softmax(query.transpose(1, 2) @ key.permute(0, 2, 3, 1), dim=-1)
        joint = (weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2)  # -> (batch, tokens, width)
        if encoder_hidden_states is None:
            return joint
        length = encoder_hidden_states.shape[1]
        return attn.to_out[0](joint[:, length:].contiguous()), attn.to_add_out(joint[:, :length].contiguous())


def _rms_norm(features: Tensor, weight: Tensor) -> Tensor:
    scale = torch.rsqrt(features.square().float().mean(-1, keepdim=True) + 1e-6)
    return features * scale.to(features.dtype) * weight.to(features.dtype)


def _rotate(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    cosine, sine = (table.to(features.dtype)[None, :, None, 0::2] for table in (cosine, sine))
    real, imaginary = features.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = (real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    return torch.stack(rotated, dim=-1).flatten(-2)
