"""`--strength auto` from the command line: what it found repeats itself from the picture; what was not made is told."""

import json

import numpy as np
from PIL import Image


def test_what_auto_found_repeats_itself(command, folder, tmp_path):
    drawn = ["-m", folder, "--prompt", "a red dog", "--seed", "1", "--steps", "2", "--layers", "0,3"]
    code, out, err = command(
        "edit", *drawn, "--to", "a blue dog", "--to", "a cat", "--strength", "auto", "--out", "o", "--format", "json"
    )
    assert code == 0, err
    recipe = json.loads(out)["recipe"]
    assert len(recipe["edit_strength"]) == 2 and recipe["auto"]["runs"] == 5
    assert command("edit", "-m", folder, "--from-image", "o/edit_2.png", "--out", "again")[0] == 0
    for file in ("edit_1.png", "edit_2.png"):
        one, other = (np.asarray(Image.open(tmp_path / out / file)) for out in ("o", "again"))
        assert np.array_equal(one, other)
    assert command("edit", *drawn, "--to", "a cat", "--strength", "automatic")[0] == 2


def test_an_edit_that_was_not_made_is_told_unless_asked_not_to(command):
    wish = ["--prompt", "a red dog standing on the grass", "--seed", "1", "--steps", "4", "--strength", "0.05",
            "--to", "a red dog standing on the beach"]  # fmt: skip
    code, _, err = command("edit", *wish, "--quiet")
    assert code == 0 and "warning: This edit was not made" in err
    assert "warning" not in command("edit", *wish, "--quiet", "--no-check")[2]
