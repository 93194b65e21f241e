"""The names of FLUX.1's weights in the layout of its authors, and where diffusers keeps them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Rows = Callable[[Tensor], Tensor]
"""What a module of diffusers takes of a weight, a bias or an update: all rows, some of them, or another order."""

Place = tuple[str, Rows]
"""A module of diffusers, and the rows that it takes."""

ROOT: Mapping[str, Sequence[str]] = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
    "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
    "final_layer.linear": ["proj_out"],
}
SHIFT_BEFORE_SCALE = {"final_layer.adaLN_modulation.1": "norm_out.linear"}  # diffusers has scale before shift
DOUBLE: Mapping[str, Sequence[str]] = {
    "img_mod.lin": ["norm1.linear"],
    "txt_mod.lin": ["norm1_context.linear"],
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.norm.query_norm": ["attn.norm_q"],
    "img_attn.norm.key_norm": ["attn.norm_k"],
    "txt_attn.norm.query_norm": ["attn.norm_added_q"],
    "txt_attn.norm.key_norm": ["attn.norm_added_k"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.net.0.proj"],
    "img_mlp.2": ["ff.net.2"],
    "txt_mlp.0": ["ff_context.net.0.proj"],
    "txt_mlp.2": ["ff_context.net.2"],
}
SINGLE: Mapping[str, Sequence[str]] = {
    "modulation.lin": ["norm.linear"],
    "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
    "linear2": ["proj_out"],
    "norm.query_norm": ["attn.norm_q"],
    "norm.key_norm": ["attn.norm_k"],
}
XLABS_DOUBLE: Mapping[str, Sequence[str]] = {
    "processor.qkv_lora1": DOUBLE["img_attn.qkv"],
    "processor.qkv_lora2": DOUBLE["txt_attn.qkv"],
    "processor.proj_lora1": DOUBLE["img_attn.proj"],
    "processor.proj_lora2": DOUBLE["txt_attn.proj"],
}
XLABS_SINGLE: Mapping[str, Sequence[str]] = {
    "processor.qkv_lora": DOUBLE["img_attn.qkv"],
    "processor.proj_lora": ["proj_out"],
}


def flux_places(config: Any) -> dict[str, tuple[Place, ...]]:
    """Return where each module of the authors' layout goes, for a transformer of this config."""
    width = config["attention_head_dim"] * config["num_attention_heads"]
    places = {name: split_rows(modules, width) for name, modules in ROOT.items()}
    places |= {name: ((module, swapped),) for name, module in SHIFT_BEFORE_SCALE.items()}
    for prefix, own, count, table in (
        ("double_blocks", "transformer_blocks", config["num_layers"], {**DOUBLE, **XLABS_DOUBLE}),
        ("single_blocks", "single_transformer_blocks", config["num_single_layers"], {**SINGLE, **XLABS_SINGLE}),
    ):
        for i in range(count):
            places |= {
                f"{prefix}.{i}.{name}": split_rows([f"{own}.{i}.{module}" for module in modules], width)
                for name, modules in table.items()
            }
    return places


def swapped(tensor: Tensor) -> Tensor:
    """Exchange the halves of the rows."""
    first, second = tensor.chunk(2, dim=0)
    return torch.cat([second, first])  # a list: of a tuple, GGUF weights forget what they are


def split_rows(modules: Sequence[str], width: int) -> tuple[Place, ...]:
    """Modules that share one matrix take `width` rows each, the last one the rest."""
    if len(modules) == 1:
        return ((modules[0], lambda tensor: tensor),)
    ends = [*((i + 1) * width for i in range(len(modules) - 1)), None]
    return tuple((module, _rows(i * width, end)) for i, (module, end) in enumerate(zip(modules, ends)))


def _rows(start: int, end: int | None) -> Rows:
    return lambda tensor: tensor[start:end]
