"""The authors' layout of FLUX.1's weights, written down a second time and the other way round."""

import torch

AUTHORS_MODULES = [
    "img_in", "txt_in", "time_in.in_layer", "vector_in.out_layer", "guidance_in.in_layer", "final_layer.linear",
    "final_layer.adaLN_modulation.1", "double_blocks.0.img_mod.lin", "double_blocks.1.txt_mod.lin",
    "double_blocks.0.img_attn.qkv", "double_blocks.1.txt_attn.qkv", "double_blocks.0.img_attn.proj",
    "double_blocks.0.txt_attn.proj", "double_blocks.1.img_mlp.0", "double_blocks.1.txt_mlp.2",
    "single_blocks.0.modulation.lin", "single_blocks.1.linear1", "single_blocks.2.linear2",
]  # fmt: skip
TIME = "time_text_embed."
PLAIN = {
    "img_in": "x_embedder", "txt_in": "context_embedder",
    "time_in.in_layer": TIME + "timestep_embedder.linear_1", "time_in.out_layer": TIME + "timestep_embedder.linear_2",
    "vector_in.in_layer": TIME + "text_embedder.linear_1", "vector_in.out_layer": TIME + "text_embedder.linear_2",
    "guidance_in.in_layer": TIME + "guidance_embedder.linear_1",
    "guidance_in.out_layer": TIME + "guidance_embedder.linear_2", "final_layer.linear": "proj_out",
}  # fmt: skip
DOUBLE = {
    "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear", "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out", "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
}  # fmt: skip


def _pairs(config):
    """(authors' module, diffusers' modules stacked along the rows, leaves)."""
    for theirs, ours in PLAIN.items():
        yield theirs, [ours]
    for i in range(config.num_layers):
        theirs, ours = f"double_blocks.{i}.", f"transformer_blocks.{i}."
        for a, b in DOUBLE.items():
            yield theirs + a, [ours + b]
        yield theirs + "img_attn.qkv", [ours + f"attn.to_{x}" for x in "qkv"]
        yield theirs + "txt_attn.qkv", [ours + f"attn.add_{x}_proj" for x in "qkv"]
    for i in range(config.num_single_layers):
        theirs, ours = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        yield theirs + "modulation.lin", [ours + "norm.linear"]
        yield theirs + "linear1", [*(ours + f"attn.to_{x}" for x in "qkv"), ours + "proj_mlp"]
        yield theirs + "linear2", [ours + "proj_out"]


def _norms(config):
    for i in range(config.num_layers):
        for theirs, added in (("img", ""), ("txt", "added_")):
            for long, short in (("query", "q"), ("key", "k")):
                yield (
                    f"double_blocks.{i}.{theirs}_attn.norm.{long}_norm.scale",
                    f"transformer_blocks.{i}.attn.norm_{added}{short}.weight",
                )
    for i in range(config.num_single_layers):
        for long, short in (("query", "q"), ("key", "k")):
            yield f"single_blocks.{i}.norm.{long}_norm.scale", f"single_transformer_blocks.{i}.attn.norm_{short}.weight"


def to_authors(state, config):
    found = {theirs: state[ours] for theirs, ours in _norms(config)}
    for leaf in ("weight", "bias"):
        for theirs, ours in _pairs(config):
            if f"{ours[0]}.{leaf}" in state:
                found[f"{theirs}.{leaf}"] = torch.cat([state[f"{name}.{leaf}"] for name in ours])
        scale, shift = state[f"norm_out.linear.{leaf}"].chunk(2)
        found[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    return found


def from_authors(state, config):
    width = config.attention_head_dim * config.num_attention_heads
    found = {ours: state[theirs] for theirs, ours in _norms(config)}
    for leaf in ("weight", "bias"):
        for theirs, ours in _pairs(config):
            if f"{theirs}.{leaf}" in state:
                whole = state[f"{theirs}.{leaf}"]
                sizes = [width] * (len(ours) - 1)
                sizes.append(len(whole) - sum(sizes))
                found |= {f"{name}.{leaf}": part for name, part in zip(ours, whole.split(sizes))}
        shift, scale = state[f"final_layer.adaLN_modulation.1.{leaf}"].chunk(2)
        found[f"norm_out.linear.{leaf}"] = torch.cat([scale, shift])
    return found
