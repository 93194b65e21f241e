"""diffusers' FLUX transformer, asked as ComfyUI asks its own: latents in, attention patches on the way."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from einops import rearrange
from torch import Tensor


class StandinFlux:
    """ComfyUI's `diffusion_model` of a FLUX."""

    patch_size = 2

    def __init__(self, transformer: Any):
        self._transformer = transformer
        self.double_blocks, self.single_blocks = transformer.transformer_blocks, transformer.single_transformer_blocks
        self._options: dict[str, Any] = {}
        self.text_tokens = 0
        for kind, blocks in (("double", self.double_blocks), ("single", self.single_blocks)):
            for number, block in enumerate(blocks):
                block.attn.set_processor(_Patched(self, kind, number))
                block.register_forward_hook(self._replacing(kind, number), with_kwargs=True)

    def __call__(
        self, x: Tensor, t: Tensor, text: Tensor, *, y: Tensor, guidance: Tensor, transformer_options: Any
    ) -> Tensor:
        self._options, self.text_tokens = transformer_options, text.shape[1]
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        ids = torch.zeros(rows, columns, 3)
        ids[..., 1] += torch.arange(rows)[:, None]
        ids[..., 2] += torch.arange(columns)
        tokens = self._transformer(
            hidden_states=rearrange(x, "n c (y a) (x b) -> n (y x) (c a b)", a=2, b=2),
            encoder_hidden_states=text,
            pooled_projections=y,
            timestep=t,
            guidance=guidance if self._transformer.config.guidance_embeds else None,
            img_ids=ids.reshape(-1, 3),
            txt_ids=torch.zeros(text.shape[1], 3),
        ).sample
        return rearrange(tokens, "n (y x) (c a b) -> n c (y a) (x b)", y=rows, a=2, b=2)

    def patched(self, q: Tensor, k: Tensor, v: Tensor, kind: str, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values as the patches leave them; (batch, heads, tokens, head_dim)."""
        extra = {
            **self._options,
            "block_type": kind,
            "block_index": number,
            "img_slice": [self.text_tokens, q.shape[2]],
        }
        for patch in self._options.get("patches", {}).get("attn1_patch", []):
            out = patch(q, k, v, pe=None, attn_mask=None, extra_options=extra)
            q, k, v = out.get("q", q), out.get("k", k), out.get("v", v)
        return q, k, v

    def _replacing(self, kind: str, number: int):
        def hook(block: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            replace = self._options.get("patches_replace", {}).get("dit", {}).get((f"{kind}_block", number))
            if replace is None:
                return None
            streams = {"img": kwargs["hidden_states"], "txt": kwargs["encoder_hidden_states"]}
            out = replace(streams, {"original_block": None})
            return (out.get("txt", streams["txt"]), out["img"])

        return hook


class _Patched:
    """An attention processor with ComfyUI's patch point between QK norm and RoPE."""

    def __init__(self, owner: StandinFlux, kind: str, number: int):
        self._owner, self._kind, self._number = owner, kind, number

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None):
        q, k, v = self._heads(attn, hidden_states, attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k)
        text = self._owner.text_tokens
        if encoder_hidden_states is not None:
            words = self._heads(
                attn, encoder_hidden_states, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj,
                attn.norm_added_q, attn.norm_added_k,
            )  # fmt: skip
            q, k, v = (torch.cat([word, image], 2) for word, image in zip(words, (q, k, v)))
        q, k, v = self._owner.patched(q, k, v, self._kind, self._number)
        q, k = (apply_rotary_emb(part, image_rotary_emb, sequence_dim=2) for part in (q, k))
        mixed = rearrange(F.scaled_dot_product_attention(q, k, v), "n h t d -> n t (h d)")
        if encoder_hidden_states is None:
            return mixed
        return attn.to_out[0](mixed[:, text:]), attn.to_add_out(mixed[:, :text])

    def _heads(self, attn, states, to_q, to_k, to_v, norm_q, norm_k):
        q, k, v = (rearrange(to(states), "n t (h d) -> n h t d", h=attn.heads) for to in (to_q, to_k, to_v))
        return norm_q(q), norm_k(k), v
