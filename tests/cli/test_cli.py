"""The commands, on a folder with a tiny random FLUX: what they write, and one clear message for everything wrong."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from cli_tools import picture
from PIL import Image
from test_images import png_header
from tiny_flux import tiny_flux_pipeline

from stableflow import files

WRITTEN = ["comparison.png", "edit_1.png", "edit_2.png", "result.json", "source.png"]


@pytest.fixture
def generated(folder):
    return ["edit", "--model", folder, "--prompt", "a red dog", "--to", "a blue dog", "--to", "a red cat",
            "--seed", "1", "--layers", "0,3", "--steps", "2"]  # fmt: skip


@pytest.fixture
def real(folder, tmp_path):
    picture(tmp_path / "photo.png")
    return ["edit", "--model", folder, "--image", tmp_path / "photo.png", "--prompt", "a red dog",
            "--to", "a blue dog", "--to", "a red cat", "--layers", "0,3", "--steps", "3"]  # fmt: skip


def pixels(path):
    return np.asarray(Image.open(path))


def test_editing_a_drawn_picture(command, generated, tmp_path):
    code, out, _ = command(*generated, "--out", "o")
    assert code == 0 and "a blue dog" in out
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == WRITTEN
    recipe = json.loads((tmp_path / "o" / "result.json").read_text())["recipe"]
    assert recipe["edits"] == ["a blue dog", "a red cat"] and recipe["layers"] == [0, 3]
    assert "/" not in (tmp_path / "o" / "result.json").read_text(), "recipes hold no local paths"
    assert Image.open(tmp_path / "o" / "comparison.png").width > 3 * 200


def test_editing_a_real_picture_keeps_its_size(command, real, tmp_path):
    code, _, _ = command(*real, "--out", "o")
    assert code == 0
    assert Image.open(tmp_path / "o" / "edit_1.png").size == (16, 13)  # reduced to the model's 16 pixels, aspect kept
    code, _, _ = command(*real, "--out", "o2", "--height", "20", "--width", "24")
    assert code == 0 and Image.open(tmp_path / "o2" / "edit_1.png").size == (24, 20)


@pytest.mark.parametrize("kind", ["generated", "real"])
def test_a_run_is_repeated_from_its_picture(command, request, folder, tmp_path, kind):
    arguments = request.getfixturevalue(kind)
    command(*arguments, "--out", "o", "--weight", "0.8", "--window", "0.3,1")
    again = ["--model", folder, *(["--image", tmp_path / "photo.png"] if kind == "real" else [])]
    code, _, err = command("edit", "--from-image", "o/edit_2.png", *again, "--out", "o2")
    assert code == 0, err
    for name in ("source.png", "edit_1.png", "edit_2.png"):
        assert np.array_equal(pixels(tmp_path / "o" / name), pixels(tmp_path / "o2" / name))


def test_repeating_needs_the_same_picture(command, real, folder, tmp_path):
    command(*real, "--out", "o")
    code, _, err = command("edit", "--from-image", "o/edit_1.png", "--out", "o2")
    assert code == 2 and "give it again with --image" in err
    picture(tmp_path / "other.png", 20, 20)
    code, _, err = command("edit", "-m", folder, "--from-image", "o/edit_1.png", "--image", "other.png", "--out", "o2")
    assert code == 2 and "image is" in err


def test_run_files(command, folder, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"model: {folder}\nprompt: a red dog\nto: [a blue dog, a red cat]\nseed: 1\nlayers: [0, 3]\nsteps: 5\n"
    )
    assert command("edit", "--config", "run.yaml", "--steps", "2", "--out", "o")[0] == 0
    assert len(json.loads((tmp_path / "o" / "result.json").read_text())["recipe"]["source"]["times"]) == 3
    for text, message in [("prompt: [", "not valid YAML"), ("- a", "'name: value' lines"), ("promt: a dog", "promt")]:
        (tmp_path / "bad.yaml").write_text(text)
        code, _, err = command("edit", "--config", "bad.yaml")
        assert code == 2 and message in err
    assert command("edit", "--config", "none.yaml")[0] == 2


def test_json_goes_to_stdout_alone(command, generated):
    code, out, err = command(*generated, "--out", "o", "--format", "json", "--no-check")
    assert code == 0 and err == ""
    assert [Path(file).name for file in json.loads(out)["files"]] == [
        "source.png", "edit_1.png", "edit_2.png", "comparison.png", "result.json",
    ]  # fmt: skip


def test_a_dry_run_writes_nothing(command, generated, real, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, _ = command(*generated, "--out", "o", "--dry-run")
    assert code == 0 and "edit evaluations: 2" in out
    code, out, _ = command(*real, "--out", "o", "--dry-run", "--format", "json", "--keep", "share")
    assert code == 0 and json.loads(out)["edit rows"] == 3
    assert sorted(tmp_path.iterdir()) == before


def test_what_an_edit_of_a_region_computes_is_said(command, generated, tmp_path):
    region = [*generated, "--layers", "all", "--mask", "box:4,2,6,9", "--out", "o"]
    code, out, _ = command(*region, "--dry-run")
    assert code == 0 and "layers: [0, 1, 2, 3, 4]" in out
    code, _, err = command(*region, "-v")
    assert code == 0 and "computed 6 of 16 image tokens a pass; keys and values: 0." in err and "MB on device" in err
    code, _, err = command(*region, "-v", "--keep", "disk", "--set", "compute=all")
    assert code == 0 and "computed 16 of 16 image tokens a pass: compute='all'" in err and "MB on disk" in err


def test_presets(command, real, folder, tmp_path):
    real = real[: real.index("--steps")]
    code, out, _ = command(*real, "--preset", "fast", "--dry-run", "--format", "json")
    plan = json.loads(out)
    assert code == 0 and (plan["preset"], plan["steps"]) == ("fast", 8)
    assert (plan["source evaluations"], plan["edit evaluations"]) == (24, 8)
    code, _, err = command(*real, "--preset", "fast", "--out", "o", "--session", "s")
    assert code == 0, err
    recipe = json.loads((tmp_path / "o" / "result.json").read_text())["recipe"]
    assert recipe["preset"]["name"] == "fast" and recipe["nfe"] == {"source": 24, "edit": 8, "rows": 2}
    code, _, err = command("edit", "--from-image", "o/edit_1.png", "-m", folder, "--image", "photo.png", "--out", "o2")
    assert code == 0 and np.array_equal(pixels(tmp_path / "o/edit_1.png"), pixels(tmp_path / "o2/edit_1.png")), err
    code, _, err = command(*real, "--preset", "exact", "--session", "s", "--out", "o3")
    assert code == 2 and "num_steps is 8 there and 50 here" in err
    refused(command(*real, "--preset", "slow", "--out", "o4"), "Unknown preset 'slow'", tmp_path / "o4")


def test_previews_are_off_by_default(command, generated, tmp_path):
    command(*generated, "--out", "o", "--preview", "1")
    assert (tmp_path / "o" / "preview.png").exists()


def test_metadata_can_be_left_out(command, generated, tmp_path):
    command(*generated, "--out", "o", "--no-metadata")
    assert Image.open(tmp_path / "o" / "edit_1.png").info == {}


def test_sessions(command, generated, real, tmp_path):
    first = command(*generated, "--session", "s", "--out", "o")
    again = command(*generated, "--session", "s", "--out", "o2")
    assert first[0] == again[0] == 0
    assert np.array_equal(pixels(tmp_path / "o/edit_1.png"), pixels(tmp_path / "o2/edit_1.png"))
    for changed in (["--seed", "2"], ["--steps", "7"], ["--height", "32"], ["--guidance", "1"]):
        code, _, err = command(*generated, *changed, "--session", "s", "--out", "o3")
        assert code == 2 and "made under other settings" in err, changed
    code, _, err = command(*real[:-2], "--session", "s", "--out", "o3")
    assert code == 2 and "session" in err


def test_invert_then_edit(command, real, folder, tmp_path):
    image = real[real.index("--image") + 1]
    code, _, _ = command("invert", "-m", folder, "--image", image, "--prompt", "a red dog", "--layers", "0,3",
                         "--steps", "3", "--out", "s")  # fmt: skip
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "reconstruction.png",
        "source.json",
        "source.safetensors",
    ]
    assert command(*real, "--session", "s", "--out", "o")[0] == 0
    assert command(*real, "--out", "o2")[0] == 0
    assert np.array_equal(pixels(tmp_path / "o/edit_1.png"), pixels(tmp_path / "o2/edit_1.png"))


def test_a_long_prompt_warns_and_says_what_is_cut(command, generated):
    code, _, err = command(*generated, "--to", "a dog on the grass", "--max-sequence-length", "4", "--out", "o")
    assert code == 0 and "cut off was 'the grass'" in err and "Traceback" not in err


def jpeg():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="JPEG")
    return buffer.getvalue()


BAD_PICTURES = {
    "missing": (None, "There is no file"),
    "text": (b"hello", "not a picture"),
    "cut": (jpeg()[:900], "damaged or cut off"),
    "empty": (b"", "0 bytes"),
    "large": (png_header(10000, 6000), "60 megapixels"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures(command, real, tmp_path, name):
    content, message = BAD_PICTURES[name]
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    real[real.index("--image") + 1] = bad
    refused(command(*real, "--out", "o"), message, tmp_path)


def test_a_picture_of_one_pixel(command, real, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "bad.png")
    real[real.index("--image") + 1] = tmp_path / "bad.png"
    refused(command(*real, "--out", "o"), "1x1", tmp_path)


def refused(answer, message, tmp_path):
    """One message, exit code 2, no traceback, nothing half-written."""
    code, out, err = answer
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and out == "" and len(errors) == 1, err
    assert message in err and "Traceback" not in err
    assert not (tmp_path / "o").exists() or list((tmp_path / "o").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--prompt", " "], "A prompt is empty"),
        (["--to", ""], "A prompt is empty"),
        (["--layers", "0,9"], "layers [9] are out of range"),
        (["--layers", "some"], "layers"),
        (["--layers", "vital"], "No vital layers are known"),
        (["--steps", "-3"], "steps: Input should be greater than or equal to 1 (got -3)"),
        (["--steps", "0"], "steps: Input should be greater than or equal to 1 (got 0)"),
        (["--guidance", "nan"], "guidance: Input should be a finite number"),
        (["--edit-guidance", "nan"], "Input should be a finite number"),
        (["--model", "nothing"], "Unknown model 'nothing'"),
        (["--model", "."], "holds no model"),
        (["--model", "./gone"], "no such file or folder"),
        (["--model", "black-forest-labs/FLUX.1-dev", "--offline"], "not in the local cache"),
        (["--height", "17"], "multiples of 4"),
        (["--weight", "2"], "weight must lie in [0, 1]"),
        (["--window", "1,0"], "t_window"),
        (["--window", "now"], "window"),
        (["--solver", "rk9"], "Unknown solver 'rk9'"),
        (["--keep", "tape"], "keep"),
        (["--dtype", "int8"], "dtype: Input should be 'float32', 'bfloat16' or 'float16'"),
        (["--offload", "group", "--device", "cpu"], "this run is on the CPU"),
        (["--image", "photo.png"], "--seed draws a picture and --image gives one"),
    ],
)
def test_bad_settings(command, generated, tmp_path, change, message):
    picture(tmp_path / "photo.png")
    refused(command(*generated, *change, "--out", "o"), message, tmp_path)


def test_what_is_missing_is_named(command, real, folder, tmp_path):
    refused(
        command("edit", "--model", folder, "--image", "photo.png", "--to", "a cat"),
        "describe what the picture shows",
        tmp_path,
    )
    refused(command("edit", "--model", folder, "--prompt", "a cat"), "--to is missing", tmp_path)
    refused(command("invert", "--model", folder, "--prompt", "a cat"), "--image is missing", tmp_path)


def test_a_damaged_checkpoint(command, generated, tmp_path):
    tiny_flux_pipeline().save_pretrained(tmp_path / "broken")
    weights = tmp_path / "broken" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    refused(command(*generated, "--model", tmp_path / "broken", "--out", "o"), "could not be loaded", tmp_path)


def test_outputs_that_cannot_be_written(command, generated, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    code, _, err = command(*generated, "--out", tmp_path / "file" / "o")
    assert code == 2 and err.startswith("error: Cannot write") and "loading" not in err, (
        "refused before the model loads"
    )
    code, _, err = command(*generated, "--out", "/proc/o")
    assert code == 2 and err.startswith("error: Cannot write")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    synced = []
    monkeypatch.setattr(
        files.os, "fsync", lambda descriptor: synced.append(1) or (full(0) if len(synced) > 2 else None)
    )
    code, _, err = command(*generated, "--out", "o")
    assert code == 2 and "No space left on device" in err
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["source.png"], "whole files or none"


def test_interruption(command, generated, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("stableflow.editing.base.walk", stop)
    code, _, err = command(*generated, "--out", "o")
    assert code == 130 and "Traceback" not in err and list((tmp_path / "o").iterdir()) == []


def test_scenes(command, tmp_path):
    code, out, _ = command("scenes", "--count", "2", "--size", "32", "--out", "o")
    assert code == 0 and out.count("->") == 2
    records = json.loads((tmp_path / "o" / "scenes.json").read_text())
    assert all((tmp_path / "o" / record[part]).exists() for record in records for part in ("source", "target", "mask"))
    refused(command("scenes", "--count", "0", "--out", "o2"), "--count must lie in [1, ", tmp_path / "o2")
    refused(command("scenes", "--layers", "4", "--out", "o2"), "2 or 3 layers, not 4", tmp_path / "o2")


def test_an_unknown_training_stage(command):
    code, _, err = command("train", "flwo")
    assert code == 2 and "Did you mean 'flow'" in err


def test_doctor(command, tmp_path):
    code, out, _ = command("doctor", "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["problems"] == {} and found["bundled model"] == "loads and edits"
    code, out, _ = command("doctor", "--model", tmp_path)
    assert code == 1 and "PROBLEM model" in out and "holds no model" in out


def test_the_bundled_model_is_the_default(command, tmp_path):
    code, _, err = command("edit", "--prompt", "a dog", "--to", "a cat", "--seed", "0", "--steps", "2", "--out", "o")
    assert code == 0, err
    assert json.loads((tmp_path / "o" / "result.json").read_text())["recipe"]["source"]["model"] == "tiny"
