"""Tasks on the command line: edited, repeated from a picture, gated, listed, and measured."""

import json

import numpy as np
import pytest
from PIL import Image

STEPS = ("--steps", "2", "-q")
SOURCE = ("--prompt", "a red dog standing on the grass at noon next to a ball", "--seed", "1")
EDIT = ("edit", *SOURCE, *STEPS, "--to", "a red dog standing on the grass at noon")


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_task_finds_its_region_and_repeats_from_its_picture(command, tmp_path):
    code, _, err = command(*EDIT, "--task", "remove", "--out", "o")
    assert code == 0, err
    recipe = json.loads(Image.open(tmp_path / "o/edit_1.png").info["stableflow"])
    assert recipe["task"] == "remove" and recipe["region"].startswith("amount:")
    code, _, err = command("edit", "-q", "--from-image", "o/edit_1.png", "--out", "again")
    assert code == 0, err
    assert np.array_equal(pixels(tmp_path / "o/edit_1.png"), pixels(tmp_path / "again/edit_1.png"))


def test_the_gate(command, tmp_path):
    gated = (*EDIT, "--mask", "box:0,0,16,16", "--max-outside", "0.02")
    assert command(*gated, "--out", "o")[0] == 0
    code, _, err = command(*gated, "--held", "--set", "policy=free", "--out", "o2")
    assert code == 3 and "--max-outside is 0.02" in err
    assert (tmp_path / "o2/edit_1.png").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--task", "remov"], "Did you mean 'remove'"),
        (["--task", "remove", "--editor", "sdedit"], "is done by 'stable-flow'"),
        (["--task", "remove", "--layers", "0,3"], "so does layers"),
        (["--keep-word", "dog", "--mask", "box:0,0,9,9"], "not both"),
    ],
)
def test_contradictions_are_one_error(command, wrong, says):
    code, _, err = command(*EDIT, *wrong, "--out", "o")
    assert code == 2 and says in err


def test_tasks_are_listed(command):
    code, out, _ = command("tasks")
    assert code == 0 and "remove: Take away" in out and "background: " in out


def test_a_row_is_measured_and_goes_on(command, tmp_path):
    run = ("bench", "tasks", "--task", "text", "--real", "-n", "1", "-q", "--out", "b")
    code, out, err = command(*run)
    assert code == 0, err
    assert "| task |" in out and "letters" in out and (tmp_path / "b/sheet.png").exists()
    cells = {path: path.read_bytes() for path in (tmp_path / "b/cells").iterdir()}
    assert command(*run)[0] == 0 and all(path.read_bytes() == content for path, content in cells.items())
    assert command("bench", "tasks", "-q")[0] == 2


def test_the_style_of_a_picture(command, tmp_path):
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(tmp_path / "drawing.png")
    style = ("--reference", "drawing.png", "--showing", "a sketch of a cat")
    code, _, err = command("restyle", *SOURCE, *STEPS, *style, "--out", "o")
    assert code == 0, err
    told = json.loads(Image.open(tmp_path / "o/edit_1.png").info["stableflow"])["editor"]
    assert told["name"] == "restyle" and told["style"]["prompt"] == "a sketch of a cat"
    assert not np.array_equal(pixels(tmp_path / "o/edit_1.png"), pixels(tmp_path / "o/source.png"))
    code, _, err = command("restyle", *SOURCE, *STEPS, "--out", "o2")
    assert code == 2 and "--reference" in err and "--showing" in err
