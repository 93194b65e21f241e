"""Loading, on checkpoints written in the layouts that are published, and every way in which it can fail."""

import json
from types import SimpleNamespace

import gguf
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, LoadError, MissingExtraError, UnknownNameError
from stableflow.models import bundled, quantised, single_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_flux_pipeline().save_pretrained(folder)
    return folder


def velocity(model):
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    return model.velocity(latents, 0.5, model.encode_prompt(["a dog"]), guidance_scale=2.0)


def test_a_folder(folder, model):
    assert torch.equal(velocity(sf.load(folder)), velocity(model))
    loaded = sf.load(str(folder), dtype=torch.bfloat16, max_sequence_length=33)
    assert loaded.dtype == torch.bfloat16 and loaded.max_sequence_length == 33


def test_a_bundled_model_without_weights_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model_index.json").touch()
    monkeypatch.setattr(bundled, "bundled_path", lambda name: tmp_path / name)
    with pytest.raises(LoadError, match="'small' are not part of this version.*--model small.*or take 'tiny'"):
        sf.load("small")


def test_a_single_transformer_file(folder, model, tmp_path):
    path = tmp_path / "transformer.safetensors"
    save_file(tiny_flux_pipeline(seed=4).transformer.state_dict(), path)
    loaded = sf.load(path, components=str(folder))
    assert torch.equal(velocity(loaded), velocity(sf.wrap(_with_transformer(seed=4), name="x")))
    assert not torch.equal(velocity(loaded), velocity(model))


def _with_transformer(seed):
    pipeline = tiny_flux_pipeline()
    pipeline.transformer = tiny_flux_pipeline(seed=seed).transformer
    return pipeline


def test_a_gguf_file(folder, tmp_path):
    path = tmp_path / "transformer.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    for name, tensor in tiny_flux_pipeline(seed=4).transformer.state_dict().items():
        quantised = tensor.ndim == 2 and tensor.shape[1] % 32 == 0
        data = tensor.numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(data, kind) if quantised else data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = sf.load(path, components=str(folder))
    expected = velocity(sf.wrap(_with_transformer(seed=4), name="x"))
    gap = (velocity(loaded) - expected).abs().mean() / expected.abs().mean()
    assert 0 < gap < 0.05, "8-bit weights: close, and not the same"
    assert loaded.modifications == ("quantised weights",)
    source = sf.StableFlow(loaded, layers=[0, 3]).generate("a dog", seed=0, num_steps=2)
    assert source.latents.isfinite().all()


def test_a_lora(folder, tmp_path, model):
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = tiny_flux_pipeline()
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_k", "to_v"], init_lora_weights=False)
    pipeline.transformer.add_adapter(config)
    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.transformer))
    type(pipeline).save_lora_weights(tmp_path, transformer_lora_layers=weights)
    loaded = sf.load(folder, lora=tmp_path)
    assert torch.allclose(velocity(loaded), velocity(sf.wrap(pipeline, name="x")), atol=1e-5)
    assert (velocity(loaded) - velocity(model)).abs().max() > 1e-3
    assert (
        str(loaded.loras[0]) == loaded.modifications[0] and loaded.loras[0].name == "pytorch_lora_weights.safetensors"
    )
    assert loaded.checkpoint_hash() != model.checkpoint_hash()


@pytest.mark.parametrize("name", ["./nothing", "/no/such/place", "missing.safetensors", "~/nowhere.gguf"])
def test_paths_that_do_not_exist(name):
    with pytest.raises(LoadError, match="no such file or folder"):
        sf.load(name)


def test_names_that_are_nothing():
    with pytest.raises(UnknownNameError, match=r"'tiney'.*Did you mean 'tiny'"):
        sf.load("tiney")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(LoadError, match=r"model_index\.json is missing"):
        sf.load(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(LoadError, match=r"ends in \.safetensors or \.gguf"):
        sf.load(tmp_path / "notes.txt")


def test_another_kind_of_pipeline(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        UnknownNameError,
        match=r"StableDiffusionPipeline.*Supported pipelines: FluxPipeline, .*ZImagePipeline.*docs/extending\.md",
    ):
        sf.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "no class", "no json"])
def test_damaged_folders(tmp_path, damage):
    tiny_flux_pipeline().save_pretrained(tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    index = tmp_path / "model_index.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "garbage":
        weights.write_bytes(b"\xff" * 1000)
    elif damage == "missing":
        weights.unlink()
    else:
        index.write_text("{}" if damage == "no class" else "{")
    with pytest.raises(LoadError, match="could not be loaded"):
        sf.load(tmp_path)


def response():
    """What the hub's errors look at of an HTTP response."""
    return SimpleNamespace(headers={}, request=None, status_code=403)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lambda: GatedRepoError("gated", response=response()), r"is gated.*\n1\. Open .*\n2\. Run `hf auth login`"),
        (lambda: RepositoryNotFoundError("no", response=response()), "The hub knows no model"),
        (lambda: LocalEntryNotFoundError("offline"), "not in the local cache"),
    ],
)
def test_what_the_hub_can_answer(monkeypatch, error, message):
    def refuse(*arguments, **settings):
        raise error()

    monkeypatch.setattr(single_file, "hf_hub_download", refuse)
    with pytest.raises(LoadError, match=message):
        sf.load("black-forest-labs/FLUX.1-dev")


def test_offline_says_so(monkeypatch, tmp_path):
    with pytest.raises(LoadError, match=r"not in the local cache and cannot be fetched.*tiny"):
        sf.load("nobody/nothing-of-this-name", offline=True)


def test_choices_that_make_no_sense(folder):
    with pytest.raises(InputError, match="this run is on the CPU"):
        sf.load(folder, device="cpu", offload="model")
    with pytest.raises(InputError, match=r"max_sequence_length must lie in \[1, "):
        sf.load(folder, max_sequence_length=0)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantised_weights(folder, model, kind):
    """Edits on the quantised model are as exact as on any: recorded equals shared, and a further edit the first."""
    loaded = sf.load(folder, device="cpu", quantise=kind)
    difference = (velocity(loaded) - velocity(model)).abs().max()
    assert 0 < difference < 0.2 * velocity(model).abs().max()
    assert loaded.modifications == ("quantised weights",) and loaded.checkpoint_hash() != model.checkpoint_hash()
    recorded, shared = (sf.StableFlow(loaded, layers=[0, 3], kv_memory=keep) for keep in ("cpu", "share"))
    source = recorded.generate("a red dog", seed=1, num_steps=2)
    edits = recorded.edit(source, ["a blue cat"]).latents
    assert torch.equal(recorded.edit(source, ["a blue cat"]).latents, edits)
    together = shared.edit(shared.generate("a red dog", seed=1, num_steps=2), ["a blue cat"]).latents
    assert (edits - together).abs().max() <= 1e-4


def test_what_cannot_be_quantised(folder, tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match="kind of quantised weights 'int4'.*int8, fp8"):
        sf.load(folder, quantise="int4")
    path = tmp_path / "transformer.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"transformer\.gguf is quantised already"):
        sf.load(path, components=str(folder), quantise="int8")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stableflow\[quantise\]'"):
        sf.load(folder, quantise="int8")
    with pytest.raises(MissingExtraError, match=r"nf4 need bitsandbytes: pip install 'stableflow\[nf4\]'"):
        sf.load(folder, quantise_text="nf4")
