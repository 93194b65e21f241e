"""Layer sets pushed to a repository, pulled by another user, and found by a checkpoint's hash."""

import dataclasses
import json

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner
from vital.standin_hub import Hub

import stableflow as sf
from stableflow.cli.main import app
from stableflow.errors import InputError, LoadError, UnknownNameError
from stableflow.models.layer_sets import fetch_set, layer_folders
from stableflow.vital.presets import Preset, find_preset, known_preset, resolve_layers
from stableflow.vital.sharing import as_file, pull, push, read_set
from stableflow.vital.vitality import Vitality

TOKEN = "hf_mine"
REPOSITORY = "me/layers-of-mine"


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def hub():
    with Hub(TOKEN) as server:
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def at_the_hub(hub, monkeypatch, tmp_path):
    """The client talks to the stand-in, and keeps what it fetches in the test's own folders."""
    import huggingface_hub.hf_api

    hub.repositories.clear()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("STABLEFLOW_LAYERS", str(tmp_path / "layers"))
    return hub


@pytest.fixture
def preset(model):
    return Preset(
        layers=(0, 3), num_layers=len(model.layers), names=("me/mine",), checkpoint=model.checkpoint_hash(),
        source="measured on 8 prompts", nudge_scale=1.05, vitality={"dino_cls": [0.5, 0.1, 0.1, 0.4, 0.1]},
        tasks={"style": (1, 2)},
    )  # fmt: skip


def test_pushed_pulled_and_found_by_the_hash(hub, model, preset):
    assert known_preset(model) is None
    assert push([preset], REPOSITORY).endswith(REPOSITORY)
    assert set(hub.repositories[REPOSITORY]) == {f"layers/{preset.checkpoint}.json", "README.md"}
    assert [found.layers for found in pull(REPOSITORY)] == [(0, 3)]
    found = find_preset(model)
    assert dataclasses.replace(found, vitality={}) == dataclasses.replace(preset, vitality={})
    assert sf.StableFlow(model).chosen_layers == (0, 3)
    assert resolve_layers(model, "vital:style") == (1, 2)
    with pytest.raises(UnknownNameError, match="style"):
        resolve_layers(model, "vital:stlye")


def test_a_second_set_keeps_the_first_and_the_card_names_both(hub, preset):
    push([preset], REPOSITORY)
    push([dataclasses.replace(preset, checkpoint="f" * 16, names=("me/other",))], REPOSITORY, private=True)
    assert len([name for name in hub.repositories[REPOSITORY] if name.startswith("layers/")]) == 2
    card = hub.repositories[REPOSITORY]["README.md"].decode()
    assert "| me/mine | 0, 3 | 5 | style: 1, 2 |" in card and "me/other" in card and card.startswith("---\n")
    assert {found.names[0] for found in pull(REPOSITORY)} == {"me/mine", "me/other"}


def test_load_asks_the_hub_where_it_is_told_to(hub, pipeline, preset, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    with pytest.raises(LoadError, match="The hub knows no model 'me/layers-of-mine'"):
        sf.load(tmp_path / "model", layer_sets=REPOSITORY, device="cpu")
    push([dataclasses.replace(preset, checkpoint="f" * 16)], REPOSITORY)
    with pytest.warns(UserWarning, match="has no layers of this checkpoint"):
        sf.load(tmp_path / "model", layer_sets=REPOSITORY, device="cpu")
    push([preset], REPOSITORY)
    loaded = sf.load(tmp_path / "model", layer_sets=REPOSITORY, device="cpu")
    assert sf.StableFlow(loaded).chosen_layers == (0, 3)
    hub.repositories.clear()  # what is here is not asked for again
    sf.load(tmp_path / "model", layer_sets=REPOSITORY, device="cpu")


def test_without_the_right_token_nothing_is_written(hub, preset, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(LoadError, match="me/layers-of-mine"):
        push([preset], REPOSITORY)
    assert hub.repositories == {}


def test_a_set_of_a_name_alone_cannot_be_shared(preset):
    with pytest.raises(InputError, match="known by name alone"):
        push([dataclasses.replace(preset, checkpoint=None)], REPOSITORY)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"checkpoint": "../../x"}, {"layers": [0, 99]}, {"layers": [0, 0]}, {"layers": ["0"]},
        {"tasks": {"style": [-1]}}, {"nudge_scale": float("nan")}, {"nudge_scale": 0}, {"num_layers": 10**9},
        {"names": []}, {"layers": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_strangers_file_is_checked(hub, preset, change):
    content = json.loads(as_file(preset)) | change
    hub.repositories[REPOSITORY] = {f"layers/{preset.checkpoint}.json": json.dumps(content).encode()}
    with pytest.raises(LoadError, match="is no layer set"):
        pull(REPOSITORY)
    assert not list(layer_folders()[0].glob("*")) if layer_folders()[0].exists() else True


def test_a_set_under_anothers_name_and_one_too_large_are_refused(hub, preset):
    hub.repositories[REPOSITORY] = {f"layers/{'e' * 16}.json": as_file(preset).encode()}
    with pytest.raises(LoadError, match="is the set of"):
        pull(REPOSITORY)
    hub.repositories[REPOSITORY] = {f"layers/{'e' * 16}.json": b" " * 2_000_000}
    with pytest.raises(LoadError, match="a layer set has a few thousand"):
        fetch_set(REPOSITORY, "e" * 16)


def test_a_damaged_local_file_names_itself(model):
    folder = layer_folders()[0]
    folder.mkdir(parents=True)
    (folder / f"{model.checkpoint_hash()}.json").write_text("{")
    with pytest.raises(LoadError, match=r"is no layer set .* Remove it, or pull it again"):
        known_preset(model)


def test_by_the_command(hub, model, tmp_path):
    vitality = Vitality(
        {"pixels": torch.tensor([[0.9, 0.8], [0.1, 0.1], [0.1, 0.2], [0.8, 0.7], [0.1, 0.1]])},
        checkpoint=model.checkpoint_hash(), model="mine", kinds=("double",) * 2 + ("single",) * 3,
        prompts=("a dog", "a cat"), protocol={"num_steps": 15},
    )  # fmt: skip
    vitality.save(tmp_path / "vitality.json")
    arguments = ["--name", "me/mine", "--task", "style=1,2", "--format", "json"]
    done = invoke("vital", "push", REPOSITORY, str(tmp_path / "vitality.json"), *arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sets"][0]["layers"] == [0, 3]
    done = invoke("vital", "pull", REPOSITORY, "--format", "json")
    assert done.exit_code == 0, done.output
    found = read_set(layer_folders()[0] / f"{model.checkpoint_hash()}.json")
    assert found.source == "measured on 2 prompts, 15 steps, by pixels" and found.tasks == {"style": (1, 2)}
    assert invoke("vital", "pull", REPOSITORY, "--checkpoint", "0" * 16).exit_code != 0
    assert invoke("vital", "push", REPOSITORY, str(tmp_path / "vitality.json"), "--task", "style").exit_code != 0
