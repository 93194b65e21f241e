"""Which files load into which family: `python tests/models/layouts.py` measures every cell of docs/models.md's table.

A cell is "yes" where every weight that was written is the weight that is loaded, to the bit (fp8 and GGUF: the number
that the file holds), so that outputs are equal; or "no" with the reason, which is what loading says.
"""

import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))

import gguf
import torch
from families import FAMILIES
from safetensors.torch import load_file, save_file

import stableflow as sf
from stableflow.errors import LoadError

sys.path.append(str(Path(__file__).parent))
from authors_layouts import to_authors

NAMES = ["FLUX.1", "FLUX.2-dev", "FLUX.2-klein", "SD3.5-medium", "Qwen-Image", "Z-Image", "Chroma", "Bria"]
DOCS = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- layouts: begin -->\n", "<!-- layouts: end -->"
FP8 = torch.float8_e4m3fn
FOLDERS = Path(tempfile.mkdtemp(prefix="layouts"))
COMFY = "model.diffusion_model."


@cache
def pipeline_of(family):
    pipeline = FAMILIES[family].make()
    pipeline.save_pretrained(FOLDERS / family)
    return pipeline


def expected(family):
    return {name: weight.clone() for name, weight in pipeline_of(family).transformer.state_dict().items()}


def authors(family):
    return {name: weight.contiguous() for name, weight in to_authors(family, pipeline_of(family).transformer).items()}


def load(family, state, parts=(), name="model.safetensors"):
    path = FOLDERS / f"{family}-{name}"
    save_file({key: tensor.clone() for key, tensor in state.items()}, path)
    return sf.load(path, components=str(FOLDERS / family), parts=parts, device="cpu", offline=True).pipeline


def same(module, weights):
    own = module.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


def transformer_file(family, state, weights=None):
    weights = expected(family) if weights is None else weights
    assert same(load(family, state).transformer, weights), "other weights than were written"


def diffusers_names(family):
    transformer_file(family, expected(family))


def authors_names(family):
    transformer_file(family, authors(family))


def comfy_prefix(family):
    transformer_file(family, {COMFY + name: tensor for name, tensor in authors(family).items()})


def plain_fp8(family):
    written = {name: tensor.to(FP8) for name, tensor in expected(family).items()}
    transformer_file(family, written, {name: tensor.float() for name, tensor in written.items()})


def scaled_fp8(family):
    written, weights = {}, {}
    for name, tensor in expected(family).items():
        written[name] = weights[name] = tensor
        if tensor.ndim == 2 and name.endswith(".weight"):
            scale = tensor.abs().max() / 400
            written |= {name: (tensor / scale).to(FP8), name.removesuffix("weight") + "scale_weight": scale}
            weights[name] = written[name].float() * scale
    transformer_file(family, written | {"scaled_fp8": torch.zeros(2, dtype=FP8)}, weights)


def gguf_q8(family):
    """Quantised rows, in the authors' names: as they are in the file, in each module's own place."""
    path, state = FOLDERS / f"{family}.gguf", authors(family)
    writer, rounded, kinds = gguf.GGUFWriter(path, "x"), {}, gguf.GGMLQuantizationType
    for name, tensor in state.items():
        eight = tensor.ndim == 2 and tensor.shape[1] % 32 == 0 and name.endswith(".weight") and "embed" not in name
        data = gguf.quants.quantize(tensor.numpy(), kinds.Q8_0) if eight else tensor.numpy()
        writer.add_tensor(name, data, raw_dtype=kinds.Q8_0 if eight else kinds.F32)
        rounded[name] = torch.from_numpy(gguf.quants.dequantize(data, kinds.Q8_0).copy()) if eight else tensor
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = sf.load(path, components=str(FOLDERS / family), device="cpu", offline=True).pipeline.transformer
    own = {name: exactly(weight) for name, weight in loaded.state_dict().items()}
    weights = load(family, rounded, name="rounded.safetensors").transformer.state_dict()
    assert own.keys() == weights.keys() and not [name for name in own if not torch.equal(own[name], weights[name])]


def exactly(weight):
    """What a quantised weight stands for, in float32."""
    if not hasattr(weight, "quant_type"):
        return weight
    return torch.from_numpy(gguf.quants.dequantize(weight.as_tensor().numpy(), weight.quant_type).copy())


def autoencoder(family):
    written = authors_vae(family)
    save_file(written, FOLDERS / f"{family}-ae.safetensors")
    made = load(family, expected(family), [FOLDERS / f"{family}-ae.safetensors"])
    assert same(made.vae, pipeline_of(family).vae.state_dict())


def text_encoders(family):
    files = []
    for name, state in texts(family).items():
        files.append(FOLDERS / f"{family}-{name}.safetensors")
        save_file(state, files[-1])
    made = load(family, expected(family), files)
    for name in texts(family):
        assert same(getattr(made, name), getattr(pipeline_of(family), name).state_dict()), name


def whole_model(family):
    state = {COMFY + name: tensor for name, tensor in authors(family).items()}
    state |= {f"vae.{name}": tensor for name, tensor in authors_vae(family).items()}
    for name, own in texts(family).items():
        state |= {f"text_encoders.{name}.transformer.{key}": tensor for key, tensor in own.items()}
    made = load(family, state)
    for name in ("transformer", "vae", *texts(family)):
        assert same(getattr(made, name), getattr(pipeline_of(family), name).state_dict()), name


def texts(family):
    """The text encoders' weights as ComfyUI's files hold them: transformers' names of earlier years."""
    pipeline, found = pipeline_of(family), {}
    for name in [name for name in pipeline.components if name.startswith("text_encoder")]:
        if getattr(pipeline, name) is None:
            continue
        state, kind = load_file(FOLDERS / family / name / "model.safetensors"), type(getattr(pipeline, name)).__name__
        for key, tensor in state.items():
            if kind.startswith("CLIP") and not key.startswith("text_"):
                key = f"text_model.{key}"
            if kind == "Qwen3Model":
                key = f"model.{key}"
            if kind.startswith("Qwen2_5"):
                key = key.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
            found.setdefault(name, {})[key] = tensor
    return found


def authors_vae(family):
    """The autoencoder in the layout of latent diffusion."""
    vae, found = pipeline_of(family).vae, {}
    if "down_block_types" not in vae.config:
        return {f"{name.replace('mid_block.resnets', 'middle')}": t.clone() for name, t in vae.state_dict().items()}
    blocks = len(vae.config.up_block_types)
    for name, tensor in vae.state_dict().items():
        if "down_blocks." in name:
            name = name.replace("down_blocks", "down").replace("resnets", "block")
        if "up_blocks." in name:
            number = int(name.split(".")[2])
            name = name.replace(f"up_blocks.{number}", f"up.{blocks - 1 - number}").replace("resnets", "block")
        for ours, theirs in (("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"),
                             ("conv_shortcut", "nin_shortcut"), ("mid_block.resnets.0", "mid.block_1"),
                             ("mid_block.resnets.1", "mid.block_2"), ("conv_norm_out", "norm_out")):  # fmt: skip
            name = name.replace(ours, theirs)
        if "mid_block.attentions.0." in name:
            for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
                                 ("to_out.0", "proj_out")):  # fmt: skip
                name = name.replace(ours, theirs)
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        found[name] = tensor.clone()
    return found


LAYOUTS = {
    "transformer, diffusers' names": diffusers_names,
    "transformer, its authors' names": authors_names,
    "transformer, ComfyUI (`model.diffusion_model.`)": comfy_prefix,
    "transformer in fp8": plain_fp8,
    "transformer in scaled fp8": scaled_fp8,
    "transformer in GGUF (Q8_0)": gguf_q8,
    "autoencoder (`--part`)": autoencoder,
    "text encoders (`--part`)": text_encoders,
    "whole model in one file": whole_model,
}


def measured(family, layout):
    """A cell: "yes", or "no" and the reason that loading gives."""
    pipeline_of(family)
    try:
        LAYOUTS[layout](family)
    except LoadError as error:
        return f"no: {str(error).replace(str(FOLDERS), '')}"
    return "yes"


def table(cells):
    """The table, its reasons below."""
    lines, notes = [f"| | {' | '.join(NAMES)} |", f"|---|{'---|' * len(NAMES)}"], []
    for layout in LAYOUTS:
        row = []
        for family in NAMES:
            cell = cells[family, layout]
            row.append("yes" if cell == "yes" else "no")
            if cell != "yes":
                notes.append(f"- {family}, {layout}: {cell.removeprefix('no: ').split(' (parts=) ')[-1]}")
        lines.append(f"| {layout} | {' | '.join(row)} |")
    return "\n".join([*lines, "", *notes]) + "\n"


if __name__ == "__main__":
    content = table({(family, layout): measured(family, layout) for family in NAMES for layout in LAYOUTS})
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}{content}{END}{rest.split(END)[1]}")
    sys.stdout.write(content)
