"""LoRA in every layout: it acts as the matrices say, worked out here on the weights, or is refused by name."""

import json
import warnings

import pytest
import torch
from flux_layouts import AUTHORS_MODULES, from_authors, to_authors
from safetensors.torch import save_file
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import LoadError
from stableflow.models.lora import apply_lora, read_lora

MODULES = ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.ff.net.2", "single_transformer_blocks.2.attn.to_v"]
XLABS = {
    "double_blocks.0.processor.qkv_lora1": "double_blocks.0.img_attn.qkv",
    "double_blocks.1.processor.qkv_lora2": "double_blocks.1.txt_attn.qkv",
    "double_blocks.0.processor.proj_lora1": "double_blocks.0.img_attn.proj",
    "double_blocks.0.processor.proj_lora2": "double_blocks.0.txt_attn.proj",
    "single_blocks.1.processor.proj_lora": "single_blocks.1.linear2",
}


def velocity(pipeline):
    model = sf.wrap(pipeline, name="x")
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    return model.velocity(latents, 0.5, model.encode_prompt(["a red dog"]), guidance_scale=2.0)


def matrices(shapes, rank=2):
    """Down and up for each module of these shapes."""
    rng = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(rank, columns, generator=rng) * 0.3, torch.randn(rows, rank, generator=rng) * 0.3)
        for name, (rows, columns) in shapes.items()
    }


def own_shapes():
    weights = tiny_flux_pipeline().transformer.state_dict()
    return {name: tuple(weights[name + ".weight"].shape) for name in MODULES}


def merged(updates, scale=1.0):
    """The velocity of the pipeline with the updates in its weights."""
    pipeline = tiny_flux_pipeline()
    for name, (down, up) in updates.items():
        pipeline.transformer.get_submodule(name).weight.data += scale * up @ down
    return velocity(pipeline)


def loaded(path):
    pipeline = tiny_flux_pipeline()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        apply_lora(pipeline, read_lora(path, offline=True))
    return velocity(pipeline)


def named(updates, pattern, down, up, alpha=None, joined=False):
    state = {}
    for name, (a, b) in updates.items():
        key = pattern.format(name.replace(".", "_") if joined else name)
        state |= {f"{key}.{down}.weight": a, f"{key}.{up}.weight": b}
        if alpha is not None:
            state[f"{key}.alpha"] = torch.tensor(float(alpha))
    return state


DIFFUSERS_NAMES = {
    "diffusers": ("transformer.{}", "lora_A", "lora_B", False),
    "no prefix": ("{}", "lora_A", "lora_B", False),
    "peft": ("base_model.model.{}", "lora_A", "lora_B", False),
    "peft with an adapter's name": ("transformer.{}", "lora_A.default", "lora_B.default", False),
    "old diffusers": ("transformer.{}", "lora.down", "lora.up", False),
    "diffusion_model": ("diffusion_model.{}", "lora_A", "lora_B", False),
    "kohya": ("lora_unet_{}", "lora_down", "lora_up", True),
    "ai-toolkit": ("lora_transformer_{}", "lora_down", "lora_up", True),
    "lycoris": ("lycoris_{}", "lora_down", "lora_up", True),
}
AUTHORS_NAMES = {
    "dotted": ("{}", "lora_A", "lora_B", False),
    "diffusion_model": ("diffusion_model.{}", "lora_A", "lora_B", False),
    "fal": ("base_model.model.{}", "lora_A", "lora_B", False),
    "kohya": ("lora_unet_{}", "lora_down", "lora_up", True),
}


@pytest.mark.parametrize("alpha", [None, 1, 8])
@pytest.mark.parametrize("layout", DIFFUSERS_NAMES)
def test_diffusers_names(tmp_path, layout, alpha):
    pattern, down, up, joined = DIFFUSERS_NAMES[layout]
    updates = matrices(own_shapes())
    save_file(named(updates, pattern, down, up, alpha, joined), tmp_path / "a.safetensors")
    expected = merged(updates, 1.0 if alpha is None else alpha / 2)
    assert torch.allclose(loaded(tmp_path / "a.safetensors"), expected, atol=1e-4)
    assert (expected - velocity(tiny_flux_pipeline())).abs().max() > 1e-2


def authors_merged(updates, scale):
    pipeline = tiny_flux_pipeline()
    state = to_authors(pipeline.transformer.state_dict(), pipeline.transformer.config)
    for name, (down, up) in updates.items():
        state[f"{name}.weight"] = state[f"{name}.weight"] + scale * up @ down
    pipeline.transformer.load_state_dict(from_authors(state, pipeline.transformer.config), strict=True)
    return velocity(pipeline)


def authors_shapes():
    pipeline = tiny_flux_pipeline()
    state = to_authors(pipeline.transformer.state_dict(), pipeline.transformer.config)
    return {name: tuple(state[f"{name}.weight"].shape) for name in AUTHORS_MODULES}


@pytest.mark.parametrize("alpha", [None, 8])
@pytest.mark.parametrize("layout", AUTHORS_NAMES)
def test_authors_names(tmp_path, layout, alpha):
    pattern, down, up, joined = AUTHORS_NAMES[layout]
    updates = matrices(authors_shapes())
    save_file(named(updates, pattern, down, up, alpha, joined), tmp_path / "a.safetensors")
    expected = authors_merged(updates, 1.0 if alpha is None else alpha / 2)
    assert torch.allclose(loaded(tmp_path / "a.safetensors"), expected, atol=1e-4)


@pytest.mark.parametrize("name", AUTHORS_MODULES)
def test_every_module_of_the_authors_names_acts(tmp_path, name):
    updates = matrices({name: authors_shapes()[name]})
    save_file(named(updates, "lora_unet_{}", "lora_down", "lora_up", 2, True), tmp_path / "a.safetensors")
    assert torch.allclose(loaded(tmp_path / "a.safetensors"), authors_merged(updates, 1.0), atol=1e-4)


def test_xlabs_names(tmp_path):
    shapes = authors_shapes()
    updates = matrices({name: shapes[own] for name, own in XLABS.items() if own in shapes})
    save_file(named(updates, "{}", "down", "up"), tmp_path / "a.safetensors")
    own = {XLABS[name]: pair for name, pair in updates.items()}
    assert torch.allclose(loaded(tmp_path / "a.safetensors"), authors_merged(own, 1.0), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [({"r": 2, "lora_alpha": 6}, 3.0), ({"r": 2, "lora_alpha": 6, "use_rslora": True}, 6 / 2**0.5),
     ({"r": 2, "lora_alpha": 6, "alpha_pattern": dict.fromkeys(MODULES, 1)}, 0.5)],
)  # fmt: skip
@pytest.mark.parametrize("place", ["metadata", "beside"])
def test_settings_of_peft(tmp_path, settings, scale, place):
    updates = matrices(own_shapes())
    if place == "metadata":
        state = named(updates, "transformer.{}", "lora_A", "lora_B")
        text = json.dumps({f"transformer.{key}": value for key, value in settings.items()})
        save_file(state, tmp_path / "pytorch_lora_weights.safetensors", {"lora_adapter_metadata": text})
    else:
        state = named(updates, "base_model.model.{}", "lora_A", "lora_B")
        save_file(state, tmp_path / "adapter_model.safetensors")
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert torch.allclose(loaded(tmp_path), merged(updates, scale), atol=1e-4)


@pytest.mark.parametrize("pattern", ["text_encoder.text_model.{}", "text_encoder.{}", "lora_te1_text_model_{}"])
def test_text_encoders(tmp_path, pattern):
    name, joined = "encoder.layers.0.self_attn.q_proj", "_{}" in pattern
    updates = matrices({name: (20, 20)})
    save_file(named(updates, pattern, "lora_down", "lora_up", 2, joined), tmp_path / "a.safetensors")
    pipeline = tiny_flux_pipeline()
    found = next(module for key, module in pipeline.text_encoder.named_modules() if key.endswith(name))
    found.weight.data += updates[name][1] @ updates[name][0]
    expected = velocity(pipeline)
    assert torch.allclose(loaded(tmp_path / "a.safetensors"), expected, atol=1e-4)
    assert (expected - velocity(tiny_flux_pipeline())).abs().max() > 1e-4


QUERY, QKV = "transformer_blocks.0.attn.to_q", "lora_unet_double_blocks_0_img_attn_qkv"
PAIR = {
    f"transformer.{QUERY}.lora_A.weight": torch.ones(2, 32),
    f"transformer.{QUERY}.lora_B.weight": torch.ones(32, 2),
}
CONVOLUTIONS = {name: tensor[..., None, None] for name, tensor in PAIR.items()}
REFUSED = {
    "LoKr": {f"{QKV}.lokr_w1": torch.ones(4, 4), f"{QKV}.lokr_w2": torch.ones(24, 8)},
    "LoKr ": PAIR | {f"{QKV}.lokr_w1_a": torch.ones(4, 4)},
    "LoHa": {f"{QKV}.hada_w1_a": torch.ones(96, 2), f"{QKV}.hada_w1_b": torch.ones(2, 32)},
    "magnitudes of": PAIR | {f"transformer.{QUERY}.lora_magnitude_vector": torch.ones(1, 32)},
    "incomplete ": PAIR | {f"{QKV}.dora_scale": torch.ones(96, 1)},
    "magnitudes for some": PAIR
    | {f"transformer.{QUERY}.dora_scale": torch.ones(32, 1)}
    | {name.replace("blocks.0", "blocks.1"): tensor.clone() for name, tensor in PAIR.items()},
    "Read are diffusers' and peft's names": {f"some.thing.lora_{k}.weight": torch.ones(2, 2) for k in "AB"},
    "differences of biases": PAIR | {f"{QKV}.diff_b": torch.ones(96)},
    "differences of biases ": PAIR | {f"transformer.{QUERY}.lora_B.bias": torch.ones(32)},
    "differences of biases or norms": PAIR | {"double_blocks.0.img_attn.norm.query_norm.diff": torch.ones(16)},
    "other weights": PAIR | {"transformer.x_embedder.weight": torch.ones(32, 16)},
    "Tucker": PAIR | {f"{QKV}.lora_mid.weight": torch.ones(2, 2, 1, 1)},
    "second text encoder": PAIR | {"lora_te2_encoder_block_0.lora_up.weight": torch.ones(4, 2)},
    "of a UNet": CONVOLUTIONS,
    "modules that FluxTransformer2DModel does": {k.replace("blocks.0", "blocks.9"): v for k, v in PAIR.items()},
    "modules that FluxTransformer2DModel does ": {k.replace("transformer.", "unet."): v for k, v in PAIR.items()},
    "made for another model": {k: torch.ones(64, 2) if "_B" in k else v for k, v in PAIR.items()},
    "made for another model ": {k: torch.ones(2, 64) if "_A" in k else v for k, v in PAIR.items()},
    "incomplete": {k: v for k, v in PAIR.items() if "_A" in k},
    "alpha of": PAIR | {f"transformer.{QUERY}.alpha": torch.tensor(float("nan"))},
    "alpha of ": PAIR | {f"transformer.{QUERY}.alpha": torch.ones(3)},
    "twice": PAIR | {f"lora_unet_{QUERY.replace('.', '_')}.lora_{k}.weight": v
                     for k, v in (("down", torch.ones(2, 32)), ("up", torch.ones(32, 2)))},
    "a whole transformer": {f"{QUERY}.weight": torch.ones(32, 32)},
    "a VAE": {"decoder.conv_in.weight": torch.ones(4, 4)},
    "no weights at all": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_by_name(tmp_path, kind):
    save_file(REFUSED[kind], tmp_path / "strange.safetensors")
    with pytest.raises(LoadError, match="strange.safetensors") as caught:
        loaded(tmp_path / "strange.safetensors")
    assert kind.strip() in str(caught.value)


def test_zero_differences_are_no_reason_to_refuse(tmp_path):
    save_file(PAIR | {f"{QKV}.diff_b": torch.zeros(96)}, tmp_path / "a.safetensors")
    assert torch.equal(loaded(tmp_path / "a.safetensors"), loaded(tmp_path / "a.safetensors"))


def test_updates_of_zero_are_said_to_change_nothing(tmp_path):
    save_file({k: v * ("_A" in k) for k, v in PAIR.items()}, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="changes nothing"):
        apply_lora(tiny_flux_pipeline(), read_lora(tmp_path / "a.safetensors", offline=True))


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.ckpt", "a.pkl", "a.pth"])
def test_pickles_are_never_opened(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('code was run')",)

    torch.save({"a": Bomb()}, tmp_path / name)
    for given in (tmp_path / name, tmp_path):
        with pytest.raises(LoadError, match="pickles"):
            read_lora(given, offline=True)


@pytest.mark.parametrize(
    "given", ["lora_typo", "x/lora_typo.safetensors", "./lora_typo", "/no/lora_typo", "a/b/c/lora_typo"]
)
def test_files_that_are_not_there_are_named(given):
    with pytest.raises(LoadError, match="lora") as caught:
        read_lora(given, offline=True)
    assert "weight_name" not in str(caught.value) and "LoRA" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>" * 9, b"\xff" * 64, b"\x08" + bytes(7) + b'{"a":1}', b"\2" + bytes(7) + b"{}"]
)
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(LoadError, match="a.safetensors"):
        read_lora(tmp_path / "a.safetensors", offline=True)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"transformer.lora_alpha": "x"}', '{"transformer.use_dora": true}', "[" * 99999]
)
def test_damaged_settings_are_named(tmp_path, text):
    save_file(PAIR, tmp_path / "a.safetensors", {"lora_adapter_metadata": text})
    with pytest.raises(LoadError, match="a.safetensors"):
        loaded(tmp_path / "a.safetensors")


def test_several_files_in_a_folder_are_not_guessed_from(tmp_path):
    for name in "ab":
        save_file(PAIR, tmp_path / f"{name}.safetensors")
    with pytest.raises(LoadError, match="2 files"):
        read_lora(tmp_path, offline=True)
