"""A source is saved and loaded, also in a new process, and gives bitwise the same edits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_stable_flow import EDITS, LAYERS, SOURCE, generated, inverted

import stableflow as sf
from stableflow.errors import LoadError, TokenLayoutError


@pytest.mark.parametrize("make", [generated, inverted])
@pytest.mark.parametrize("keep", ["device", "share"])
def test_a_loaded_source_gives_the_same_edits(model, tmp_path, make, keep):
    editor, source = sf.StableFlow(model, layers=LAYERS, kv_memory=keep), make(model, kv_memory=keep)
    source.save(tmp_path)
    loaded = sf.Source.load(tmp_path)
    assert loaded.fingerprint == source.fingerprint
    assert torch.equal(loaded.images, source.images) and torch.equal(loaded.latents, source.latents)
    assert torch.equal(editor.edit(loaded, EDITS).latents, editor.edit(source, EDITS).latents)


def test_a_new_process_gives_the_same_edits(model, tmp_path):
    source = generated(model)
    source.save(tmp_path)
    expected = sf.StableFlow(model, layers=LAYERS).edit(source, EDITS).latents
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); torch.set_num_threads(int(sys.argv[3]))\n"
        "import stableflow as sf\n"
        "from tiny_flux import tiny_flux_pipeline\n"
        "model = sf.wrap(tiny_flux_pipeline(), name='random-flux')\n"
        f"edits = sf.StableFlow(model, layers={LAYERS}).edit(sf.Source.load(sys.argv[2]), {EDITS}).latents\n"
        "torch.save(edits, sys.argv[2] + '/edits.pt')\n"
    )
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", script, tests, str(tmp_path), str(torch.get_num_threads())], check=True)
    assert torch.equal(torch.load(tmp_path / "edits.pt"), expected)


def test_text_lengths_may_differ_unless_the_batch_is_shared(pipeline, tmp_path):
    short, long = (sf.wrap(pipeline, name="x", max_sequence_length=length) for length in (20, 33))
    recorded = sf.StableFlow(short, layers=LAYERS, kv_memory="device").generate(SOURCE, seed=0, num_steps=2)
    assert sf.StableFlow(long, layers=LAYERS).edit(recorded, EDITS).images.shape[0] == len(EDITS)
    shared = sf.StableFlow(short, layers=LAYERS, kv_memory="share").generate(SOURCE, seed=0, num_steps=2)
    with pytest.raises(TokenLayoutError, match="one text length"):
        sf.StableFlow(long, layers=LAYERS).edit(shared, EDITS)


def test_damaged_and_missing_sessions(model, tmp_path):
    with pytest.raises(LoadError, match=r"holds no saved source.*source\.json is missing"):
        sf.Source.load(tmp_path)
    generated(model).save(tmp_path)
    tensors = tmp_path / "source.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:200])
    with pytest.raises(LoadError, match="missing or damaged"):
        sf.Source.load(tmp_path)
    settings = json.loads((tmp_path / "source.json").read_text())
    (tmp_path / "source.json").write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(LoadError, match="format 99"):
        sf.Source.load(tmp_path)
    (tmp_path / "source.json").write_text("{")
    with pytest.raises(LoadError, match="damaged"):
        sf.Source.load(tmp_path)


def test_nothing_but_the_two_files_is_left(model, tmp_path):
    generated(model).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.json", "source.safetensors"]
    assert SOURCE in (tmp_path / "source.json").read_text()
