"""Checkpoints of every kind: each weight that is missing, renamed or of another shape is named; nothing is random."""

import json
import shutil

import gguf
import pytest
import torch
from flux_layouts import to_authors
from safetensors.torch import load_file, save_file
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, LoadError, StableFlowError
from stableflow.models.checkpoint import load_transformer, read_file, sections

KIND = type(tiny_flux_pipeline().transformer)
CONFIG = dict(tiny_flux_pipeline().transformer.config)
OWN = {name: weight.detach().clone() for name, weight in tiny_flux_pipeline().transformer.state_dict().items()}
AUTHORS = {
    name: weight.contiguous() for name, weight in to_authors(OWN, tiny_flux_pipeline().transformer.config).items()
}
LAYOUTS = {"diffusers": OWN, "authors": AUTHORS}
FP8 = torch.float8_e4m3fn


def read(path, state, dtype=torch.float32):
    save_file(state, path)
    own = sections(read_file(path), path).get("transformer", {})
    return load_transformer(path, own, KIND, CONFIG, dtype, components="the parts").state_dict()


def same(found, expected=OWN):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "transformer.",
        "model.diffusion_model.",
        "diffusion_model.",
        "_orig_mod.",
        "module.",
        "model.",
        "module._orig_mod.",
        "model.transformer.",
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_prefixes(tmp_path, layout, prefix):
    assert same(read(tmp_path / "a.safetensors", {prefix + k: v.clone() for k, v in LAYOUTS[layout].items()}))


def test_the_transformer_of_a_whole_model(tmp_path):
    state = {f"model.diffusion_model.{k}": v.clone() for k, v in AUTHORS.items()} | {"other.bias": torch.ones(3)}
    with pytest.warns(UserWarning, match="weights that are not read: other.bias"):
        assert same(read(tmp_path / "a.safetensors", state))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_single_weight_that_is_missing_renamed_or_of_another_shape_is_named(tmp_path, layout):
    state = LAYOUTS[layout]
    for i, name in enumerate(state):
        without = {k: v for k, v in state.items() if k != name}
        change = [{}, {name + "_": state[name]}, {name: state[name][:-1].clone()}][i % 3]
        with pytest.raises(LoadError, match="a.safetensors"):
            read(tmp_path / "a.safetensors", without | change)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [1, 2])
def test_fewer_and_more_layers(tmp_path, layout, block):
    state = LAYOUTS[layout]
    last = f"blocks.{block}."
    fewer = {k: v for k, v in state.items() if last not in k}
    with pytest.raises(LoadError, match="lacks"):
        read(tmp_path / "a.safetensors", fewer)
    more = state | {k.replace(last, "blocks.7."): v.clone() for k, v in state.items() if last in k}
    with pytest.raises(LoadError, match=r"has no place for|lacks"):
        read(tmp_path / "a.safetensors", more)


WRONG = {
    "a LoRA": {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 2)},
    "a LoRA ": {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 2)},
    "a VAE": {"decoder.up_blocks.0.resnets.0.conv1.weight": torch.ones(2, 2)},
    "a text encoder": {"text_model.embeddings.token_embedding.weight": torch.ones(2, 2)},
    "a text encoder ": {"encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(2, 2)},
    "a UNet": {"down_blocks.0.attentions.0.proj_in.weight": torch.ones(2, 2)},
    "a transformer of Stable Diffusion 3": {"joint_blocks.0.x_block.attn.qkv.weight": torch.ones(2, 2)},
    "holds no weights": {},
    "of another kind": {"a": torch.ones(2)},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_other_files_are_told_what_they_are(tmp_path, kind):
    with pytest.raises(LoadError, match="a.safetensors") as caught:
        read(tmp_path / "a.safetensors", WRONG[kind])
    assert kind.strip() in str(caught.value)


def test_a_file_without_guidance_is_told_so(tmp_path):
    with pytest.raises(LoadError, match="guidance"):
        read(tmp_path / "a.safetensors", {k: v for k, v in OWN.items() if "guidance" not in k})


def in_fp8(state, end=".scale_weight", rows=False):
    found = {}
    for name, weight in state.items():
        if weight.ndim == 2:
            scale = weight.abs().amax(dim=1, keepdim=True) / 400 if rows else (weight.abs().max() / 400)
            found[name] = (weight / scale).to(FP8)
            found[name.removesuffix(".weight") + end] = scale
        else:
            found[name] = weight.to(torch.bfloat16)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", [".scale_weight", ".weight_scale"])
@pytest.mark.parametrize("rows", [False, True])
def test_fp8_is_multiplied_by_its_scales(tmp_path, layout, end, rows):
    state = in_fp8(LAYOUTS[layout], end, rows) | {"scaled_fp8": torch.zeros(2, dtype=FP8)}
    first = next(name for name in state if name.endswith(end))
    state[first.replace(end, ".scale_input")] = torch.ones(1)
    found = read(tmp_path / "a.safetensors", state)
    if layout == "authors":
        found = to_authors(found, tiny_flux_pipeline().transformer.config)
    for name, weight in LAYOUTS[layout].items():
        assert (found[name] - weight).abs().max() <= 0.05 * weight.abs().max() + 1e-6, name


def test_fp8_without_scales_is_what_it_is(tmp_path):
    state = {name: weight.to(FP8) for name, weight in OWN.items()}
    assert same(read(tmp_path / "a.safetensors", state), {name: weight.float() for name, weight in state.items()})


def test_every_single_scale_that_is_missing_is_named(tmp_path):
    state = in_fp8(AUTHORS)
    for scale in [name for name in state if name.endswith(".scale_weight")][::3]:
        for change in ({}, {scale.replace("scale_weight", "scale"): state[scale]}):
            with pytest.raises(LoadError, match="a.safetensors"):
                read(tmp_path / "a.safetensors", {k: v for k, v in state.items() if k != scale} | change)


@pytest.mark.parametrize(
    "extra",
    [
        {"single_blocks.0.linear1.weight_scale_inv": torch.ones(2, 2)},
        {
            "single_blocks.0.linear1.weight.absmax": torch.ones(2),
            "single_blocks.0.linear1.weight.quant_state.x": torch.ones(1),
        },
        {"single_blocks.0.linear1.comfy_quant": torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)},
        {"single_blocks.0.linear1.comfy_quant": torch.tensor(list(b"[" * 9000), dtype=torch.uint8)},
        {"single_blocks.0.linear1.scale_weight": torch.ones(3, 5)},
        {"single_blocks.0.linear1.weight": torch.ones(4, 4, dtype=torch.uint8)},
        {"scaled_fp8": torch.zeros(2, dtype=FP8)} | {k: v.to(FP8) for k, v in AUTHORS.items()},
    ],
)
def test_other_forms_of_quantisation_are_refused(tmp_path, extra):
    with pytest.raises(LoadError, match="a.safetensors.*(quantised|fp8|scale)"):
        read(tmp_path / "a.safetensors", AUTHORS | extra)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_flux_pipeline().save_pretrained(folder)
    return folder


WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("change", ["missing", "missing last", "shape", "fewer layers", "more layers"])
def test_folders_with_a_part_that_is_incomplete(tmp_path, folder, part, change):
    copy = shutil.copytree(folder, tmp_path / "model")
    path, config = copy / part / f"{WEIGHTS[part]}.safetensors", copy / part / "config.json"
    weights, settings = load_file(path), json.loads(config.read_text())
    names = sorted(name for name in weights if weights[name].ndim == 2)
    counter = {
        "transformer": "num_single_layers",
        "text_encoder": "num_hidden_layers",
        "text_encoder_2": "num_layers",
    }.get(part)
    if "layers" in change:
        if counter is None:
            pytest.skip("the autoencoder's layers are no number in its config; ends when it has one")
        settings[counter] += 1 if change == "fewer layers" else -1
        config.write_text(json.dumps(settings))
    elif change == "shape":
        weights[names[0]] = weights[names[0]][:-1].clone()
    else:
        weights.pop(names[0] if change == "missing" else names[-1])
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(StableFlowError, match=rf"model.*{part}"):
        sf.load(copy, device="cpu", offline=True)


@pytest.mark.parametrize(
    "index", ["[]", "null", "{}", '{"_class_name": 3}', '{"_class_name": "os"}', "[" * 10**5, "{", ""]
)
def test_model_index_of_another_shape(tmp_path, folder, index):
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "model_index.json").write_text(index)
    with pytest.raises(StableFlowError, match="model"):
        sf.load(copy, device="cpu", offline=True)


@pytest.mark.parametrize(
    "part", ["tokenizer", "scheduler", "vae/config.json", "transformer/config.json", "text_encoder"]
)
def test_folders_that_lack_a_part(tmp_path, folder, part):
    copy = shutil.copytree(folder, tmp_path / "model")
    path = copy / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(LoadError, match="could not be loaded"):
        sf.load(copy, device="cpu", offline=True)


def test_pickles_in_a_folder_are_not_read(tmp_path, folder):
    copy = shutil.copytree(folder, tmp_path / "model")
    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), copy / "transformer" / "diffusion_pytorch_model.bin")
    path.unlink()
    with pytest.raises(LoadError, match="transformer.*could not be loaded"):
        sf.load(copy, device="cpu", offline=True)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_single_files_are_quantised_as_folders(tmp_path, folder, kind):
    save_file(OWN, tmp_path / "a.safetensors")
    one = sf.load(tmp_path / "a.safetensors", components=str(folder), device="cpu", quantise=kind)
    other = sf.load(folder, device="cpu", quantise=kind)
    assert one.modifications == other.modifications == ("quantised weights",)
    assert one.checkpoint_hash() == other.checkpoint_hash()


@pytest.mark.parametrize("change", ["missing", "extra", "lora", "not gguf", "empty"])
def test_gguf_files_that_are_incomplete(tmp_path, folder, change):
    path, state = tmp_path / "a.gguf", dict(OWN)
    if change == "missing":
        state.pop(sorted(state)[7])
    elif change == "extra":
        state["transformer_blocks.9.attn.to_q.weight"] = torch.ones(32, 32)
    elif change == "lora":
        state = {"a.lora_A.weight": torch.ones(2, 2)}
    if change in ("not gguf", "empty"):
        path.write_bytes(b"" if change == "empty" else b"<html>" * 50)
    else:
        writer = gguf.GGUFWriter(path, "flux")
        for name, tensor in state.items():
            writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with pytest.raises(LoadError, match="a.gguf"):
        sf.load(path, components=str(folder), device="cpu")


@pytest.mark.parametrize("components", ["parts_typo", "./no/parts", "/no/parts", "~nosuchuserhere/parts", ""])
def test_components_that_are_not_there(tmp_path, components):
    save_file(OWN, tmp_path / "a.safetensors")
    with pytest.raises(StableFlowError, match="components"):
        sf.load(tmp_path / "a.safetensors", components=components, offline=True)


@pytest.mark.parametrize("device", ["cuda:99", "moon", "", "meta", "cpu:x", "-1", None, 3])
def test_devices_that_are_not_there(device):
    with pytest.raises(InputError, match="device"):
        sf.load("tiny", device=device)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, "float32", torch.complex64, 3])
def test_dtypes_that_are_none(dtype):
    with pytest.raises(InputError, match="dtype"):
        sf.load("tiny", dtype=dtype)


@pytest.mark.parametrize("name", [None, 3, b"tiny", "", "~nosuchuserhere/model", "a\0b", ["tiny"]])
def test_names_that_are_none(name):
    with pytest.raises(StableFlowError):
        sf.load(name, offline=True)
