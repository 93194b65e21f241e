"""Modular blocks: the library's edit to the last bit, and diffusers' own command shows and runs them."""

import json
import sys

import pytest
import torch
from diffusers.commands import diffusers_cli
from PIL import Image
from tiny_flux import SIZE

import stableflow as sf
from stableflow.images import to_pil
from stableflow.integrations.modular import StableFlowBlocks, write_blocks

SOURCE, EDIT = "a red dog standing on the grass", "a blue dog standing on the snow"
QUICK = {"num_inference_steps": 2, "layers": [0, 2, 3]}


@pytest.fixture(scope="module")
def weights(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blocks(weights):
    made = StableFlowBlocks().init_pipeline(str(weights))
    made.load_components()
    return made


@pytest.fixture(scope="module")
def picture():
    return to_pil(torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))


@pytest.fixture(scope="module")
def editor(model):
    return sf.StableFlow(model, layers=QUICK["layers"])


def test_a_drawn_source(blocks, editor):
    noise = torch.Generator().manual_seed(1)
    result = blocks(prompt=EDIT, source_prompt=SOURCE, generator=noise, guidance_scale=3.5, output="result", **QUICK)
    expected = editor.edit(editor.generate(SOURCE, seed=1, num_steps=2, guidance_scale=3.5), EDIT)
    assert torch.equal(result.latents, expected.latents)


@pytest.mark.parametrize("settings", [{}, {"strength": 0.5}, {"region": "box:0,0,8,8"}], ids=str)
def test_a_picture_and_its_source_again(blocks, editor, picture, settings):
    state = blocks(image=picture, prompt=EDIT, source_prompt=SOURCE, **QUICK, **settings)
    source = editor.invert(picture, SOURCE, num_steps=2)
    expected = editor.edit(source, EDIT, region=settings.get("region"), strength=settings.get("strength"))
    assert torch.equal(state.get("result").latents, expected.latents)
    again = blocks.blocks.sub_blocks["edit"].init_pipeline()
    again.update_components(**{name: getattr(blocks, name) for name in blocks.component_names})
    edited = again(source=state.get("source"), prompt=EDIT, output="result", **QUICK, **settings)
    assert torch.equal(edited.latents, expected.latents)


def diffusers_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["diffusers-cli", "--format", "json", *map(str, arguments)])
    diffusers_cli.main()


def test_diffusers_own_command_shows_and_runs_them(weights, editor, picture, tmp_path, monkeypatch, capsys):
    folder = write_blocks(tmp_path / "pack", str(weights))
    picture.save(tmp_path / "picture.png")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    diffusers_command(monkeypatch, "schema", "-m", folder, "--trust-remote-code")
    shown = capsys.readouterr().out
    inputs = {entry["name"]: entry for entry in json.loads(shown[shown.index("{") :])["inputs"]}
    assert inputs["source_prompt"]["required"] and not inputs["image"]["required"]
    asked = {"image": str(tmp_path / "picture.png"), "prompt": EDIT, "source_prompt": SOURCE, **QUICK}
    diffusers_command(
        monkeypatch, "run", "-m", folder, "--trust-remote-code", "--device-map", "cpu", "--dtype", "fp32",
        "--pipeline-kwargs", json.dumps(asked), "--output-key", "images", "-o", tmp_path / "edit.png",
    )  # fmt: skip
    expected = editor.edit(editor.invert(picture, SOURCE, num_steps=2), EDIT).images[0]
    written = next(tmp_path.glob("edit*.png"))
    assert Image.open(written).tobytes() == to_pil(expected).tobytes()
