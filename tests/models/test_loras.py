"""LoRAs as a list, in every family and layout: they act as the matrices say, worked out here on the dense weights."""

import copy
import warnings

import pytest
import torch
from authors_layouts import KINDS, by_diffusers, modules, to_authors
from families import FAMILIES
from safetensors.torch import save_file

import stableflow as sf
from stableflow.errors import InputError, LoadError
from stableflow.models.lora import apply_loras, read_lora
from stableflow.models.loras import weighted

NAMES = ["Bria", "Chroma", "FLUX.1", "FLUX.2-klein", "Qwen-Image", "SD3.5-medium", "Z-Image"]
PIPELINES = {}


def pipeline_of(family):
    """A pipeline of the test's own; text encoders and autoencoder are shared."""
    if family not in PIPELINES:
        PIPELINES[family] = FAMILIES[family].make()
    pipeline = copy.copy(PIPELINES[family])
    pipeline.transformer = copy.deepcopy(PIPELINES[family].transformer)
    return pipeline


def velocity(pipeline):
    model = sf.wrap(pipeline, name="x", max_sequence_length=8)
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    return model.velocity(latents, 0.5, model.encode_prompt(["a red dog"]), guidance_scale=1.0)


def matrices(module, rank=2, seed=1):
    rng = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, module.in_features, generator=rng) * 0.3
    return down, torch.randn(module.out_features, rank, generator=rng) * 0.3


def updated(transformer, names=("to_k", "to_v")):
    """Some modules of the transformer, by name."""
    found = [name for name, module in transformer.named_modules() if name.endswith(names) and hasattr(module, "weight")]
    return found[:3]


LAYOUTS = {
    "diffusers": ("transformer.{}", "lora_A", "lora_B", None, False),
    "ai-toolkit": ("diffusion_model.{}", "lora_A", "lora_B", None, False),
    "kohya": ("lora_unet_{}", "lora_down", "lora_up", 6.0, True),
}


def written(path, updates, layout, magnitudes=None):
    pattern, down, up, alpha, joined = LAYOUTS[layout]
    state = {}
    for name, (a, b) in updates.items():
        key = pattern.format(name.replace(".", "_") if joined else name)
        state |= {f"{key}.{down}.weight": a, f"{key}.{up}.weight": b}
        state |= {} if alpha is None else {f"{key}.alpha": torch.tensor(alpha)}
        if magnitudes is not None:
            vector = magnitudes[name]
            state |= {f"{key}.dora_scale": vector[:, None]} if joined else {f"{key}.lora_magnitude_vector": vector}
    save_file(state, path)
    return path, 1.0 if alpha is None else alpha / 2


def loaded(family, *entries):
    pipeline, wanted = pipeline_of(family), weighted(list(entries))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # peft's, of modules whose names end alike
        apply_loras(pipeline, [read_lora(where, offline=True) for where, _ in wanted], [w for _, w in wanted])
    return pipeline


def close(a, b):
    return torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", [name for name in NAMES if name != "Bria"])
def test_diffusers_names_in_every_family(tmp_path, family, layout):
    pipeline = pipeline_of(family)
    plain, names = velocity(pipeline), updated(pipeline.transformer)
    updates = {name: matrices(pipeline.transformer.get_submodule(name)) for name in names}
    path, scale = written(tmp_path / "a.safetensors", updates, layout)
    for name, (down, up) in updates.items():
        pipeline.transformer.get_submodule(name).weight.data += scale * 0.5 * up @ down
    expected = velocity(pipeline)
    assert not close(expected, plain)
    assert close(velocity(loaded(family, f"{path}:0.5")), expected)


@pytest.mark.parametrize("layout", ["ai-toolkit", "kohya"])
@pytest.mark.parametrize("family", [name for name in NAMES if name in KINDS])
def test_authors_names_in_every_family(tmp_path, family, layout):
    """Updates of fused projections, and of one in each of the other kinds of modules that the authors name."""
    pipeline = pipeline_of(family)
    state, table = to_authors(family, pipeline.transformer), modules(family, pipeline.transformer.config)
    wanted = ("qkv", "linear1", "mlp.0", "mlp.fc1", "attention.out", "final_layer.linear")
    linear = {name: state[f"{name}.weight"] for name in table if name.endswith(wanted) and f"{name}.weight" in state}
    updates = {
        name: matrices(torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta"))
        for name, weight in linear.items()
    }
    path, scale = written(tmp_path / "a.safetensors", updates, layout)
    merged = {f"{name}.weight": linear[name] + scale * up @ down for name, (down, up) in updates.items()}
    dense = pipeline_of(family)
    dense.transformer.load_state_dict(from_authors(family, state | merged, dense.transformer), strict=True)
    assert close(velocity(loaded(family, path)), velocity(dense))


def from_authors(family, state, transformer):
    converted = by_diffusers(family, state)
    if converted is not None:
        return converted
    found, own = {}, transformer.state_dict()
    for theirs, ours in modules(family, transformer.config).items():
        for leaf, name in (("weight", "weight"), ("bias", "bias"), ("weight", "scale")):
            if f"{theirs}.{name}" in state:
                parts = state[f"{theirs}.{name}"].split([len(own[f"{module}.{leaf}"]) for module in ours])
                found |= {f"{module}.{leaf}": part for module, part in zip(ours, parts)}
    return {name: state.get(name) for name in own if name in state} | found


@pytest.mark.parametrize("family", [name for name in KINDS if name != "Chroma"])
def test_the_authors_layouts_here_are_what_diffusers_reads(family):
    transformer = pipeline_of(family).transformer
    converted, own = by_diffusers(family, to_authors(family, transformer)), transformer.state_dict()
    assert converted.keys() == own.keys() and all(torch.equal(converted[name], own[name]) for name in own)


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("family", ["FLUX.1", "Qwen-Image", "Z-Image"])
def test_dora(tmp_path, family, layout):
    pipeline = pipeline_of(family)
    plain, names, rng = velocity(pipeline), updated(pipeline.transformer), torch.Generator().manual_seed(2)
    updates = {name: matrices(pipeline.transformer.get_submodule(name)) for name in names}
    magnitudes = {name: 0.5 + torch.rand(len(up), generator=rng) for name, (_, up) in updates.items()}
    path, scale = written(tmp_path / "a.safetensors", updates, layout, magnitudes)
    for name, (down, up) in updates.items():
        weight = pipeline.transformer.get_submodule(name).weight
        moved = weight + scale * up @ down
        weight.data = magnitudes[name][:, None] * moved / moved.norm(dim=1, keepdim=True)
    expected = velocity(pipeline)
    assert not close(expected, plain) and close(velocity(loaded(family, path)), expected)


def test_a_dora_of_a_fused_projection(tmp_path):
    pipeline = pipeline_of("FLUX.1")
    name, parts = "double_blocks.0.img_attn.qkv", [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"]
    linears = [pipeline.transformer.get_submodule(part) for part in parts]
    down, up = matrices(torch.nn.Linear(32, 96, device="meta"))
    magnitude = 0.5 + torch.rand(96, generator=torch.Generator().manual_seed(2))
    path, scale = written(tmp_path / "a.safetensors", {name: (down, up)}, "kohya", {name: magnitude})
    for linear, rows, norms in zip(linears, up.chunk(3), magnitude.chunk(3)):
        moved = linear.weight + scale * rows @ down
        linear.weight.data = norms[:, None] * moved / moved.norm(dim=1, keepdim=True)
    assert close(velocity(loaded("FLUX.1", path)), velocity(pipeline))


def test_a_list_with_weights_is_the_sum(tmp_path):
    pipeline = pipeline_of("FLUX.1")
    one, other = updated(pipeline.transformer, ("to_k",)), updated(pipeline.transformer, ("to_k", "to_q"))
    updates = [
        {name: matrices(pipeline.transformer.get_submodule(name), rank, rank) for name in names}
        for names, rank in ((one, 2), (other, 3))
    ]
    paths = [written(tmp_path / f"{i}.safetensors", own, "diffusers")[0] for i, own in enumerate(updates)]
    for own, weight in zip(updates, (0.8, -0.4)):
        for name, (down, up) in own.items():
            pipeline.transformer.get_submodule(name).weight.data += weight * up @ down
    both = loaded("FLUX.1", f"{paths[0]}:0.8", f"{paths[1]}:-0.4")
    assert close(velocity(both), velocity(pipeline))


def test_recipes_hold_names_digests_and_weights(tmp_path):
    folder = tmp_path / "model"
    FAMILIES["FLUX.1"].make().save_pretrained(folder)
    updates = {"transformer_blocks.0.attn.to_k": matrices(torch.nn.Linear(32, 32, device="meta"))}
    path, _ = written(tmp_path / "detail.safetensors", updates, "diffusers")
    hashes = set()
    for entries in ([f"{path}:0.8"], [f"{path}:0.4"], [path, f"{path}:0.5"]):
        model = sf.load(folder, device="cpu", lora=entries)
        hashes.add(model.checkpoint_hash())
    assert len(hashes) == 3, "a weight makes another model"
    source = sf.StableFlow(model, layers=[0]).generate("a red dog", seed=1, num_steps=1)
    first, second = source.fingerprint.modifications
    digest = model.loras[0].digest
    assert (
        first == f"LoRA detail.safetensors ({digest}) at 1" and second == f"LoRA detail.safetensors ({digest}) at 0.5"
    )


@pytest.mark.parametrize("entry", ["a.safetensors:nan", "a.safetensors:1e9"])
def test_weights_that_are_none(entry):
    with pytest.raises(InputError, match="lora"):
        weighted(entry)


def test_what_is_no_weight_is_part_of_the_name(tmp_path):
    assert weighted("C:\\loras\\a.safetensors") == [("C:\\loras\\a.safetensors", 1.0)]
    (tmp_path / "a:2").touch()
    assert weighted(str(tmp_path / "a:2")) == [(str(tmp_path / "a:2"), 1.0)]
    assert weighted("user/repository:-0.5") == [("user/repository", -0.5)]


def test_a_family_without_a_loader_says_so(tmp_path):
    pipeline = pipeline_of("Bria")
    updates = {name: matrices(pipeline.transformer.get_submodule(name)) for name in updated(pipeline.transformer)}
    path, _ = written(tmp_path / "a.safetensors", updates, "diffusers")
    with pytest.raises(LoadError, match="puts no LoRA on a BriaPipeline"):
        loaded("Bria", path)
