"""`stableflow maps`: its files, its table, and one clear message for everything wrong."""

import json

import pytest
from cli_tools import picture


@pytest.fixture
def drawn(folder):
    return ["maps", "--model", folder, "--prompt", "a red dog", "--to", "a blue dog", "--seed", "1", "--layers", "0,3",
            "--steps", "2", "--point", "1,0"]  # fmt: skip


def test_a_drawn_and_a_real_picture(command, drawn, folder, tmp_path):
    code, out, err = command(*drawn, "--point", "14,6", "--out", "o", "--against", "1,2", "--format", "json")
    assert code == 0, err
    table = json.loads(out)["attention"]
    assert [row["point"] for row in table] == [[1, 0], [1, 0], [14, 6], [14, 6]]
    assert table[1]["layers"] == "not injected: 1, 2" and list(table[0]["words"]) == ["0: a", "1: blue", "2: dog"]
    written = json.loads((tmp_path / "o" / "attention.json").read_text())
    assert written["injected"] == [0, 3] and (tmp_path / "o" / "attention.png").exists()
    layers = written["passes"]["edit_1"]["layers"]
    assert table[0]["image"] == pytest.approx((layers["0"]["image"][0] + layers["3"]["image"][0]) / 2, abs=1e-3)

    picture(tmp_path / "photo.png")
    code, out, err = command("maps", "-m", folder, "-i", "photo.png", "-p", "a red dog", "-t", "a red cat", "--layers",
                             "1", "--steps", "2", "--point", "3,3", "--figure", "svg", "--out", "o2")  # fmt: skip
    assert code == 0, err
    assert (tmp_path / "o2" / "attention.svg").exists() and "point [3, 3], injected: 1: image 0." in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--point", "a"], "--point takes two whole numbers"),
        (["--point", "1,16"], "0 <= y < 16"),
        (["--against", "9"], "need layers out of 0..4"),
        (["--figure", "pdf"], "Unknown figure format"),
        (["--layers", "0,1,2,3,4"], "need layers out of 0..4"),
    ],
)
def test_mistakes(command, drawn, change, message):
    code, _, err = command(*drawn, *change, "--out", "o")
    assert code == 2 and message in err


def test_a_point_is_needed(command, drawn):
    code, _, err = command(*drawn[:-2], "--out", "o")
    assert code == 2 and "--point is missing" in err
