"""A picture repeats its run, whichever editor made it and in the first format too; a recipe chooses nothing."""

import json

import numpy as np
import pytest
from cli_tools import picture
from PIL import Image, PngImagePlugin

from stableflow.editing import EDITORS

QUICK = {
    "stable-flow": ["layers=[0,3]"],
    "alike": ["layers=[0,3]"],
    "reprompt": [],
    "cyclic": ["cycles=1"],
    "dragon": ["num_steps=4", "layers=[0,3]"],
    "sam-flow": ["num_steps=4", "n_max=3", "n_avg=1", 'stay=["dog"]'],
    "direct-inversion": ["layers=[0,3]"],
    "edit-friendly": ["num_steps=4", "skip=1"],
    "move": ['moves=[{"region": "box:0,2,4,4", "dx": 4}]'],
    "dnaedit": ["num_steps=4", "skip=1"],
    "guide-rescale": ["num_steps=4", "layers=[0,3]"],
    "pixelman": ["num_steps=4", "by=[0,2]"],
    "flowedit": ["num_steps=4", "n_max=3"],
    "rf-solver-edit": ["num_steps=3", "inject_steps=1"],
}
STEPS = ["--steps", "3"]
REPEATED = [name for name, made in EDITORS.items() if not made.needs_negative]


def sets(name):
    few = ["num_steps=4"] if "num_steps" in EDITORS[name].setting_names() else []
    return [part for pair in QUICK.get(name, few) for part in ("--set", pair)]


def pixels(path):
    return np.asarray(Image.open(path))


def recipe_of(path):
    return json.loads(Image.open(path).info["stableflow"])


def with_recipe(path, recipe, shown):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("stableflow", json.dumps(recipe))
    Image.open(shown).save(path, pnginfo=text)
    return path


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("real", [True, False])
def test_every_editors_picture_repeats_its_run(command, folder, tmp_path, name, real):
    picture(tmp_path / "photo.png", 37, 29)
    source = ["--image", "photo.png"] if real else ["--seed", "3"]
    steps = STEPS if EDITORS[name].needs_path or not real else []
    wish = ["--prompt", "a red dog", "--to", "a blue dog", "--to", "a red cat", "--mask", "box:0,0,9,9",
            "--strength", "0.8", "--editor", name, *sets(name)]  # fmt: skip
    code, _, err = command("edit", "-m", folder, *source, *steps, *wish, "--out", "o")
    assert code == 0, err
    again = ["--image", "photo.png"] if real else []
    code, _, err = command("edit", "-m", folder, "--from-image", "o/edit_2.png", *again, "--out", "o2")
    assert code == 0, err
    for file in ("source.png", "edit_1.png", "edit_2.png"):
        assert np.array_equal(pixels(tmp_path / "o" / file), pixels(tmp_path / "o2" / file))
    one, other = (recipe_of(tmp_path / out / "edit_1.png") for out in ("o", "o2"))
    assert one["editor"] == other["editor"] and one["region"] == other["region"] and one["source"] == other["source"]
    if real:
        assert pixels(tmp_path / "o" / "edit_1.png").shape[:2] == (29, 37)
        assert np.array_equal(pixels(tmp_path / "o" / "edit_1.png")[:, 30:], pixels(tmp_path / "photo.png")[:, 30:])


def first_format(recipe):
    """What Stable Flow wrote before editors' settings stood under its name."""
    kept = {name: recipe[name] for name in ("source", "edits", "guidance_scale", "layers", "keep", "kv_precision",
                                            "nfe", "seconds", "versions")}  # fmt: skip
    later = ("picture", "noise", "text_length")
    kept["source"] = {name: value for name, value in recipe["source"].items() if name not in later}
    preset = {"name": "exact", "solver": {"name": "fixed_point", "iterations": 1}, "inversion": "aligned",
              "num_steps": 50, "kv_precision": "exact", "reuse_every": 1, "reuse_tolerance": 0.0}  # fmt: skip
    return kept | {"editor": {"name": "stable-flow"}, "t_window": [0.3, 1.0], "token_mask": None, "weight": 0.8,
                   "preset": preset, "spared_passes": 0}  # fmt: skip


@pytest.mark.parametrize("real", [True, False])
def test_recipes_of_the_first_format_are_read(command, folder, tmp_path, real):
    picture(tmp_path / "photo.png")
    source = ["--image", "photo.png"] if real else ["--seed", "3"]
    again = ["--image", "photo.png"] if real else []
    code, _, err = command("edit", "-m", folder, *source, *STEPS, "--prompt", "a red dog", "--to", "a blue dog",
                           "--layers", "0,3", "--weight", "0.8", "--window", "0.3,1", "--edit-guidance", "2.5",
                           "--out", "o")  # fmt: skip
    assert code == 0, err
    old = first_format(recipe_of(tmp_path / "o" / "edit_1.png"))
    with_recipe(tmp_path / "old.png", old, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "-m", folder, "--from-image", "old.png", *again, "--out", "o2")
    assert code == 0, err
    assert np.array_equal(pixels(tmp_path / "o/edit_1.png"), pixels(tmp_path / "o2/edit_1.png"))
    with_recipe(tmp_path / "masked.png", old | {"token_mask": "0123456789abcdef"}, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "-m", folder, "--from-image", "masked.png", *again, "--out", "o3")
    assert code == 2 and "token_mask" in err and "region" in err


@pytest.fixture
def made(command, folder, tmp_path):
    """A drawn run and its recipe."""
    code, _, err = command("edit", "-m", folder, "--seed", "3", *STEPS, "--prompt", "a red dog", "--to", "a blue dog",
                           "--layers", "0,3", "--out", "o")  # fmt: skip
    assert code == 0, err
    return recipe_of(tmp_path / "o" / "edit_1.png")


@pytest.mark.parametrize("model", ["somebody/model", "/etc/passwd", "../elsewhere", "tiny\u202e"])
def test_a_recipe_loads_no_model_that_it_names(command, made, tmp_path, monkeypatch, model):
    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("stableflow.cli.options.load", load)
    made["source"]["model"] = model
    with_recipe(tmp_path / "foreign.png", made, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "--from-image", "foreign.png", "--out", "o2")
    assert code == 2 and "Give it with -m" in err and "\u202e" not in err and not (tmp_path / "o2").exists()


def test_a_recipe_with_a_foreign_model_and_picture_chooses_nothing_either(command, made, tmp_path, monkeypatch):
    """Nor where the picture is given again."""
    asked = []

    def load(name, **settings):
        asked.append((name, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("stableflow.cli.options.load", load)
    picture(tmp_path / "photo.png")
    made["source"] |= {"model": "somebody/model", "image": "0" * 16, "inversion": "aligned", "seed": None,
                       "picture": [18, 22],
                       "solver": {"name": "fixed_point", "iterations": 1},
                       "modifications": ["lora somebody/lora"]}  # fmt: skip
    with_recipe(tmp_path / "foreign.png", made, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "--from-image", "foreign.png", "--image", "photo.png", "--out", "o2")
    assert code == 2 and "Give it with -m" in err and asked == []


def test_a_recipe_with_an_adapter_loads_none_and_says_so(command, folder, made, tmp_path):
    made["source"]["modifications"] = ["lora somebody/lora"]
    with_recipe(tmp_path / "foreign.png", made, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "-m", folder, "--from-image", "foreign.png", "--out", "o2")
    assert code == 2 and "modifications was ['lora somebody/lora']" in err


@pytest.mark.parametrize("name", ["os.system", "sdedit2", "", 7, None])
def test_a_recipe_of_an_unknown_editor_is_one_error(command, folder, made, tmp_path, name):
    made["editor"]["name"] = name
    with_recipe(tmp_path / "foreign.png", made, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "-m", folder, "--from-image", "foreign.png", "--out", "o2")
    assert code == 2 and "error: " in err and "Traceback" not in err and "fault of stableflow" not in err


def test_a_recipe_reads_no_file_that_its_region_names(command, folder, made, tmp_path):
    """Regions stand in recipes as amounts; a description that names a file is somebody else's."""
    picture(tmp_path / "secret.png", 16, 16)
    made["region"] = "mask:secret.png"
    with_recipe(tmp_path / "foreign.png", made, tmp_path / "o" / "edit_1.png")
    code, _, err = command("edit", "-m", folder, "--from-image", "foreign.png", "--out", "o2")
    assert code == 2 and "region" in err, err


@pytest.mark.parametrize(
    ("change", "where", "value"),
    [
        (["--seed", "9"], ("source", "seed"), 9),
        (["--prompt", "a red cat"], ("source", "prompt"), "a red cat"),
        (["--guidance", "1.5"], ("source", "guidance_scale"), 1.5),
        (["--height", "20", "--width", "24"], ("source", "height"), 20),
        (["--solver", "midpoint"], ("source", "solver"), {"name": "midpoint"}),
        (["--to", "a red cat"], ("edits",), ["a red cat"]),
        (["--strength", "0.5"], ("editor", "strength"), 0.5),
        (["--editor", "reprompt"], ("editor", "name"), "reprompt"),
        (["--set", "weight=0.25"], ("editor", "weight"), 0.25),
    ],
)
def test_options_win_over_the_recipe(command, folder, made, tmp_path, change, where, value):
    code, _, err = command("edit", "-m", folder, "--from-image", "o/edit_1.png", *change, "--out", "o2")
    assert code == 0, err
    found = recipe_of(tmp_path / "o2" / "edit_1.png")
    for name in where:
        found = found[name]
    assert found == value
