"""The names of weights in the layouts of the models' authors, and where diffusers keeps them, family by family.

ComfyUI, kohya's trainer and ai-toolkit use the same names. A module that has none here is called in diffusers as there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stableflow.models.flux_names import DOUBLE, SINGLE, Place, flux_places, split_rows, swapped

Places = Mapping[str, tuple[Place, ...]]
"""From a module of the authors to diffusers'; "" is the model itself, for parameters that are no module's."""

LEFT_OUT = ("norm_final.weight",)
"""What files hold and no model uses: a norm of Z-Image."""

WITHOUT_MODULATION = ("img_mod.lin", "txt_mod.lin", "modulation.lin")
CHROMA_ROOT = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
FLUX2_ROOT = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
}
FLUX2_MLP = {
    "img_mlp.0": ["ff.linear_in"],
    "img_mlp.2": ["ff.linear_out"],
    "txt_mlp.0": ["ff_context.linear_in"],
    "txt_mlp.2": ["ff_context.linear_out"],
}
FLUX2_SINGLE = {
    "linear1": ["attn.to_qkv_mlp_proj"],
    "linear2": ["attn.to_out"],
    "norm.query_norm": ["attn.norm_q"],
    "norm.key_norm": ["attn.norm_k"],
}
SD3_ROOT = {
    "": "pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
SD3_BLOCK = {
    "x_block.attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "x_block.attn.proj": ["attn.to_out.0"],
    "x_block.attn.ln_q": ["attn.norm_q"],
    "x_block.attn.ln_k": ["attn.norm_k"],
    "x_block.attn2.qkv": ["attn2.to_q", "attn2.to_k", "attn2.to_v"],
    "x_block.attn2.proj": ["attn2.to_out.0"],
    "x_block.attn2.ln_q": ["attn2.norm_q"],
    "x_block.attn2.ln_k": ["attn2.norm_k"],
    "x_block.adaLN_modulation.1": ["norm1.linear"],
    "x_block.mlp.fc1": ["ff.net.0.proj"],
    "x_block.mlp.fc2": ["ff.net.2"],
    "context_block.attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "context_block.attn.proj": ["attn.to_add_out"],
    "context_block.attn.ln_q": ["attn.norm_added_q"],
    "context_block.attn.ln_k": ["attn.norm_added_k"],
    "context_block.adaLN_modulation.1": ["norm1_context.linear"],
    "context_block.mlp.fc1": ["ff_context.net.0.proj"],
    "context_block.mlp.fc2": ["ff_context.net.2"],
}
Z_IMAGE_ROOT = {"x_embedder": "all_x_embedder.2-1", "final_layer.linear": "all_final_layer.2-1.linear"}
Z_IMAGE_ROOT |= {"final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1"}
Z_IMAGE_BLOCK = {
    "attention.qkv": ["attention.to_q", "attention.to_k", "attention.to_v"],
    "attention.out": ["attention.to_out.0"],
    "attention.q_norm": ["attention.norm_q"],
    "attention.k_norm": ["attention.norm_k"],
}


def authors_places(kind: str, config: Any) -> Places:
    """Return where each module of the authors' layout goes; none where diffusers' names are the authors' own.

    Args:
        kind: diffusers' class of the transformer.
        config: Of the transformer.
    """
    return TABLES[kind](config) if kind in TABLES else {}


def chroma_places(config: Any) -> Places:
    """FLUX.1's blocks without modulation, which a network of its own makes."""
    width = _width(config)
    places = _whole(CHROMA_ROOT)
    places |= _blocks("double_blocks", "transformer_blocks", config["num_layers"], _unmodulated(DOUBLE), width)
    count = config["num_single_layers"]
    places |= _blocks("single_blocks", "single_transformer_blocks", count, _unmodulated(SINGLE), width)
    maker = "distilled_guidance_layer.layers"
    layers = {"in_layer": ["linear_1"], "out_layer": ["linear_2"]}
    return places | _blocks(maker, maker, config["approximator_layers"], layers, width)


def flux2_places(config: Any) -> Places:
    """FLUX.1's names, modulation shared by all blocks, a gated MLP, and one projection for all of a single layer."""
    width = _width(config)
    double = _unmodulated(DOUBLE) | FLUX2_MLP
    places = _whole(FLUX2_ROOT) | {"final_layer.adaLN_modulation.1": (("norm_out.linear", swapped),)}
    places |= _blocks("double_blocks", "transformer_blocks", config["num_layers"], double, width)
    count = config["num_single_layers"]
    return places | _blocks("single_blocks", "single_transformer_blocks", count, FLUX2_SINGLE, width)


def sd3_places(config: Any) -> Places:
    """Stable Diffusion 3's; its last layer's text has scale and shift alone, the other way round in diffusers."""
    count, width = config["num_layers"], _width(config)
    places = _whole(SD3_ROOT) | {"final_layer.adaLN_modulation.1": (("norm_out.linear", swapped),)}
    places |= _blocks("joint_blocks", "transformer_blocks", count, SD3_BLOCK, width)
    last = count - 1
    theirs = f"joint_blocks.{last}.context_block.adaLN_modulation.1"
    return places | {theirs: ((f"transformer_blocks.{last}.norm1_context.linear", swapped),)}


def z_image_places(config: Any) -> Places:
    """Z-Image's: queries, keys and values in one projection."""
    places = _whole(Z_IMAGE_ROOT)
    counts = {"layers": config["n_layers"], "noise_refiner": config["n_refiner_layers"]}
    for name, count in (counts | {"context_refiner": config["n_refiner_layers"]}).items():
        places |= _blocks(name, name, count, Z_IMAGE_BLOCK, config["dim"])
    return places


TABLES: Mapping[str, Callable[[Any], Places]] = {
    "FluxTransformer2DModel": flux_places,
    "ChromaTransformer2DModel": chroma_places,
    "Flux2Transformer2DModel": flux2_places,
    "SD3Transformer2DModel": sd3_places,
    "ZImageTransformer2DModel": z_image_places,
}
"""By the transformer's class. Qwen-Image's authors publish diffusers' names, and so do Bria's."""


def _width(config: Any) -> int:
    return config["attention_head_dim"] * config["num_attention_heads"]


def _whole(names: Mapping[str, str]) -> dict[str, tuple[Place, ...]]:
    return {theirs: ((ours, lambda tensor: tensor),) for theirs, ours in names.items()}


def _unmodulated(table: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {theirs: ours for theirs, ours in table.items() if theirs not in WITHOUT_MODULATION}


def _blocks(
    theirs: str, ours: str, count: int, table: Mapping[str, Sequence[str]], width: int
) -> dict[str, tuple[Place, ...]]:
    """The places of a table in every block of a list."""
    return {
        f"{theirs}.{i}.{name}": split_rows([f"{ours}.{i}.{module}" for module in modules], width)
        for i in range(count)
        for name, modules in table.items()
    }
