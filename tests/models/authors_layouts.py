"""The authors' layouts of every family's weights, written down a second time and the other way round."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "robustness"))
import flux_layouts
from diffusers.loaders import single_file_utils

MLP = {"ff.net.0.proj": "0", "ff.net.2": "2", "ff.linear_in": "0", "ff.linear_out": "2"}
FLUX2_TIME = {
    f"{a}_in.{b}_layer": f"time_guidance_embed.{c}_embedder.linear_{d}"
    for a, c in (("time", "timestep"), ("guidance", "guidance"))
    for b, d in (("in", 1), ("out", 2))
}
FLUX2_SHARED = {f"{name}.lin": f"{name}.linear" for name in (
    "double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")}  # fmt: skip
EMBEDDERS = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}


def flux_like(config, mlp):
    """What Chroma and FLUX.2 share with FLUX.1: (authors' module, diffusers' modules stacked along the rows)."""
    for i in range(config.num_layers):
        ours, theirs = f"transformer_blocks.{i}.", f"double_blocks.{i}."
        for stream, added, out, context in (("img", "to_{}", "to_out.0", "ff"),
                                            ("txt", "add_{}_proj", "to_add_out", "ff_context")):  # fmt: skip
            yield f"{theirs}{stream}_attn.qkv", [f"{ours}attn.{added.format(x)}" for x in "qkv"]
            yield f"{theirs}{stream}_attn.proj", [f"{ours}attn.{out}"]
            for name in mlp:
                yield f"{theirs}{stream}_mlp.{MLP[name]}", [ours + name.replace("ff", context)]
            norm = "norm_" if stream == "img" else "norm_added_"
            for long in ("query", "key"):
                yield f"{theirs}{stream}_attn.norm.{long}_norm", [f"{ours}attn.{norm}{long[0]}"]
    for i in range(config.num_single_layers):
        for long in ("query", "key"):
            yield f"single_blocks.{i}.norm.{long}_norm", [f"single_transformer_blocks.{i}.attn.norm_{long[0]}"]


def chroma(config):
    yield from ((theirs, [ours]) for theirs, ours in EMBEDDERS.items())
    yield from flux_like(config, ("ff.net.0.proj", "ff.net.2"))
    for i in range(config.num_single_layers):
        ours, theirs = f"single_transformer_blocks.{i}.", f"single_blocks.{i}."
        yield theirs + "linear1", [*(ours + f"attn.to_{x}" for x in "qkv"), ours + "proj_mlp"]
        yield theirs + "linear2", [ours + "proj_out"]
    for i in range(config.approximator_layers):
        name = f"distilled_guidance_layer.layers.{i}."
        yield name + "in_layer", [name + "linear_1"]
        yield name + "out_layer", [name + "linear_2"]
    for i in range(config.approximator_layers):
        yield f"distilled_guidance_layer.norms.{i}", [f"distilled_guidance_layer.norms.{i}"]


def flux2(config):
    yield from ((theirs, [ours]) for theirs, ours in {**EMBEDDERS, **FLUX2_TIME, **FLUX2_SHARED}.items())
    yield from flux_like(config, ("ff.linear_in", "ff.linear_out"))
    for i in range(config.num_single_layers):
        yield f"single_blocks.{i}.linear1", [f"single_transformer_blocks.{i}.attn.to_qkv_mlp_proj"]
        yield f"single_blocks.{i}.linear2", [f"single_transformer_blocks.{i}.attn.to_out"]


def sd3(config):
    text = "time_text_embed."
    root = {"x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out"}
    for theirs, ours in (("t", "timestep"), ("y", "text")):
        root |= {f"{theirs}_embedder.mlp.{2 * i}": f"{text}{ours}_embedder.linear_{i + 1}" for i in range(2)}
    yield from ((theirs, [ours]) for theirs, ours in root.items())
    for i in range(config.num_layers):
        ours, image, words = (
            f"transformer_blocks.{i}.",
            f"joint_blocks.{i}.x_block.",
            f"joint_blocks.{i}.context_block.",
        )
        for attention in ("attn", "attn2"):
            yield f"{image}{attention}.qkv", [f"{ours}{attention}.to_{x}" for x in "qkv"]
            yield f"{image}{attention}.proj", [f"{ours}{attention}.to_out.0"]
            yield from ((f"{image}{attention}.ln_{x}", [f"{ours}{attention}.norm_{x}"]) for x in "qk")
        yield f"{words}attn.qkv", [f"{ours}attn.add_{x}_proj" for x in "qkv"]
        yield f"{words}attn.proj", [f"{ours}attn.to_add_out"]
        yield from ((f"{words}attn.ln_{x}", [f"{ours}attn.norm_added_{x}"]) for x in "qk")
        yield f"{image}adaLN_modulation.1", [f"{ours}norm1.linear"]
        if i < config.num_layers - 1:
            yield f"{words}adaLN_modulation.1", [f"{ours}norm1_context.linear"]
        for stream, ff in ((image, "ff"), (words, "ff_context")):
            yield f"{stream}mlp.fc1", [f"{ours}{ff}.net.0.proj"]
            yield f"{stream}mlp.fc2", [f"{ours}{ff}.net.2"]


def z_image(config):
    for name in ("linear", "adaLN_modulation.1"):
        yield f"final_layer.{name}", [f"all_final_layer.2-1.{name}"]
    yield "x_embedder", ["all_x_embedder.2-1"]
    for blocks, count in (("layers", config.n_layers), ("noise_refiner", config.n_refiner_layers),
                          ("context_refiner", config.n_refiner_layers)):  # fmt: skip
        for i in range(count):
            name = f"{blocks}.{i}.attention."
            yield name + "qkv", [f"{name}to_{x}" for x in "qkv"]
            yield name + "out", [name + "to_out.0"]
            yield from ((f"{name}{x}_norm", [f"{name}norm_{x}"]) for x in "qk")


def swapped_in(kind, config):
    """Modules whose halves diffusers keeps the other way round."""
    if kind not in (flux2, sd3):
        return {}
    last = config.get("num_layers", 0) - 1
    own = {f"joint_blocks.{last}.context_block.adaLN_modulation.1": f"transformer_blocks.{last}.norm1_context.linear"}
    return {"final_layer.adaLN_modulation.1": "norm_out.linear"} | (own if kind is sd3 else {})


KINDS = {
    "Chroma": chroma,
    "FLUX.2-dev": flux2,
    "FLUX.2-klein": flux2,
    "SD3": sd3,
    "SD3.5-medium": sd3,
    "Z-Image": z_image,
}
"""By the families' names. Qwen-Image and Bria have diffusers' own names."""


def modules(family, config):
    """The authors' modules that may be updated by a LoRA, with diffusers' for each."""
    if family in ("FLUX.1", "FLUX.1-Kontext"):
        return dict(flux_layouts._pairs(config))
    return dict(KINDS[family](config))


def to_authors(family, transformer):
    """The weights of a transformer as its authors publish them."""
    state, config = transformer.state_dict(), transformer.config
    if family in ("FLUX.1", "FLUX.1-Kontext"):
        return flux_layouts.to_authors(state, config)
    if family not in KINDS:
        return dict(state)
    kind, left, found = KINDS[family], dict(state), {}
    scales = kind is not sd3 and kind is not z_image
    for leaf in ("weight", "bias"):
        for theirs, ours in kind(config):
            if f"{ours[0]}.{leaf}" in left:
                name = "scale" if scales and ("_norm" in theirs or ".norms." in theirs) else leaf
                found[f"{theirs}.{name}"] = torch.cat([left.pop(f"{name_}.{leaf}") for name_ in ours])
        for theirs, ours in swapped_in(kind, config).items():
            if f"{ours}.{leaf}" in left:
                found[f"{theirs}.{leaf}"] = torch.cat(left.pop(f"{ours}.{leaf}").chunk(2)[::-1])
    if kind is sd3:
        left["pos_embed"] = left.pop("pos_embed.pos_embed")
    return found | left


def by_diffusers(family, state):
    """What diffusers' own converter makes of the authors' weights; None where it supposes one width."""
    name = {flux2: "flux2", sd3: "sd3", z_image: "z_image"}.get(KINDS.get(family))
    if name is None:
        return None
    return getattr(single_file_utils, f"convert_{name}_transformer_checkpoint_to_diffusers")(dict(state))
