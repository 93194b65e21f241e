"""`stableflow session`: a turn, back, a branch; the picture of a turn repeats itself."""

import json

import numpy as np
from PIL import Image


def test_turns_from_the_command_line(command, folder, tmp_path):
    drawn = ["-m", folder, "--prompt", "a red dog", "--seed", "1", "--steps", "2", "--layers", "0,3"]
    assert command("edit", *drawn, "--to", "a blue dog", "--session", "s", "--out", "o")[0] == 0
    how = ["-m", folder, "--layers", "0,3", "--quiet"]
    assert command("session", "edit", "s", *how, "--swap", "red=blue")[0] == 0
    assert command("session", "edit", "s", *how, "--swap", "dog=cat", "--strength", "auto")[0] == 0
    recipe = json.loads(Image.open(tmp_path / "s/turn-2.png").info["stableflow"])
    assert recipe["auto"]["runs"] == 5 and recipe["editor"]["strength"] == recipe["auto"]["strength"][0]
    assert command("session", "undo", "s")[0] == 0
    code, out, err = command("session", "edit", "s", *how, "--to", "a blue car", "--format", "json")
    assert code == 0 and json.loads(out)["turn"] == 3, err
    code, out, _ = command("session", "show", "s")
    assert [line.split(maxsplit=1)[0] for line in out.splitlines()] == ["0", "1", "2", "*"]
    assert "* " in out and out.splitlines()[3].endswith("3 a blue car")
    code, out, _ = command("session", "go", "s", "0")
    assert code == 0 and out.startswith("* 0")
    assert command("edit", "-m", folder, "--from-image", "s/turn-2.png", "--out", "again")[0] == 0
    one, other = (np.asarray(Image.open(tmp_path / file)) for file in ("s/turn-2.png", "again/edit_1.png"))
    assert np.array_equal(one, other)


def test_what_is_wrong_is_one_message(command, folder):
    source = ["-m", folder, "--prompt", "a red dog", "--seed", "1", "--steps", "2", "--layers", "0,3"]
    assert command("edit", *source, "--to", "a blue dog", "--session", "s")[0] == 0
    wrong = [
        (["show", "nowhere"], "holds no session"),
        (["go", "s", "1"], "no turn 1"),
        (["undo", "s"], "Fewer than 1 turns"),
        (["edit", "s", "-m", folder], "--swap"),
        (["edit", "s", "-m", folder, "--swap", "red"], "--swap takes words"),
        (["edit", "s", "-m", folder, "--layers", "0", "--swap", "cat=dog"], "not in the prompt"),
        (["edit", "s", "-m", folder, "--to", "x", "--together"], "--together"),
    ]
    for words, message in wrong:
        code, _, err = command("session", *words)
        assert code == 2 and message in err, (words, err)
