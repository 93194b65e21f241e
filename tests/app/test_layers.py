"""Layers through the server: only what changed is drawn, and the picture comes back from its PNG and from its lines."""

import io

import numpy as np
import pytest
from app_tools import BLUE, DOG, PICTURE, Guest
from PIL import Image

NIGHT = {"prompt": "a red dog standing on the grass at night", "where": "box:0,0,64,28", "seed": 1}
COLOUR = {"prompt": BLUE, "where": "word:dog", "seed": 2}
STACK = {"prompt": DOG, "seed": 1, "steps": 4, "layers": [NIGHT, COLOUR]}


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def draw(guest, ask):
    job = guest.run("layers", ask)
    assert job["state"] == "done", job["error"]
    return job["result"]


def drawn(entry):
    return [stroke["drawn"] for stroke in entry["runs"][0]["strokes"]]


@pytest.fixture(scope="module")
def painter(house):
    """A guest with a mask for a third layer."""
    return Guest(house.base)


@pytest.fixture(scope="module")
def both(painter):
    return draw(painter, STACK)


def test_only_what_changed_is_drawn_again(painter, both):
    assert drawn(both) == [True, True] and not both["runs"][0]["kept"]
    assert drawn(draw(painter, STACK)) == [False, False]
    again = draw(painter, STACK | {"layers": [NIGHT, COLOUR | {"seed": 5}]})
    assert drawn(again) == [False, True] and again["runs"][0]["kept"]
    assert [stroke["passes"] > 0 for stroke in again["runs"][0]["strokes"]] == [False, True]
    hidden = draw(painter, STACK | {"layers": [NIGHT, COLOUR | {"hidden": True}]})
    assert drawn(hidden) == [False], "hiding the upper layer costs nothing"
    assert drawn(draw(painter, STACK | {"layers": [COLOUR, NIGHT]})) == [True, True]
    below = pixels(painter.file(hidden, "0/source.png"))
    night = pixels(painter.file(hidden, "0/edit_1.png"))
    assert np.array_equal(night[34:], below[34:]) and not np.array_equal(night[:20], below[:20])


def test_layers_on_an_own_picture_come_back_from_png_history_and_lines(painter, tmp_path, monkeypatch):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 24))
    buffer = io.BytesIO()
    mask.save(buffer, format="PNG")
    cat = "a white cat sitting on the grass at "
    layer = {"prompt": cat + "night", "mask": painter.upload(buffer.getvalue())["id"]}
    over = {"prompt": cat.replace("white", "black") + "noon", "where": "box:16,20,40,40", "seed": 3}
    ask = {"prompt": cat + "noon", "picture": painter.upload(PICTURE.read_bytes())["id"], "preset": "fast", "steps": 4}
    entry = draw(painter, ask | {"layers": [layer, over]})
    data = painter.file(entry, "0/edit_1.png")
    given, made = pixels(PICTURE.read_bytes()), pixels(data)
    assert made.shape == given.shape and np.array_equal(made[128:, -12:], given[128:, -12:])
    restored = painter.upload(data)["restored"]
    assert restored["notes"] == [] and [one["prompt"] for one in restored["ask"]["layers"]] == [
        layer["prompt"],
        over["prompt"],
    ]
    assert np.array_equal(pixels(painter.file(draw(painter, restored["ask"]), "0/edit_1.png")), made)
    again = painter.http.post(f"/api/history/{entry['id']}/again").json()["ask"]
    assert drawn(draw(painter, again)) == [False, False]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.png").write_bytes(PICTURE.read_bytes())
    (tmp_path / "mask_0.png").write_bytes(painter.file(entry, "mask_0"))
    exec(compile(entry["python"], "repeat.py", "exec"), {})
    assert np.array_equal(pixels((tmp_path / "out" / "0" / "edit_1.png").read_bytes()), made)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"layers": []}, "No layer shows"), ({"layers": [NIGHT | {"hidden": True}]}, "No layer shows"),
        ({"layers": [{"prompt": "x"}]}, "Layer 1: say where"),
        ({"layers": [COLOUR, NIGHT | {"prompt": " "}]}, "Layer 2"),
        ({"layers": [NIGHT | {"where": "mask:/etc/passwd"}]}, "where"),
        ({"layers": [NIGHT | {"mask": "../x"}]}, "mask"),
        ({"layers": [{"prompt": "x", "mask": "0" * 32}]}, "no longer here"), ({"layers": [NIGHT] * 13}, "up to 12"),
        ({"layers": [NIGHT | {"model": "x"}]}, "model"), ({"layers": [NIGHT | {"strength": 0}]}, "strength"),
        ({"to": [BLUE]}, "take no 'to'"), ({"layers": [NIGHT | {"prompt": "x" * 9999}]}, "layer 1"),
        ({"layers": [NIGHT | {"prompt": "a\x00dog"}]}, "control"), ({"layers": "x"}, "layers"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_are_refused_with_a_reason(painter, change, told):
    answer = painter.submit("layers", STACK | change)
    assert answer.status_code in (404, 422) and told in answer.json()["error"]["message"], answer.text


def test_layers_are_no_edit(painter):
    assert "kind 'layers'" in painter.submit("edit", STACK).json()["error"]["message"]


def test_a_cancelled_stack_keeps_the_finished_layers(painter):
    ask = STACK | {"steps": 12, "layers": [NIGHT | {"strength": 0.3}, COLOUR | {"strength": 1.0}]}
    job = painter.submit("layers", ask).json()
    while job["stage"] != "drawing the layers" or job["step"] < 1:
        job = painter.http.get(f"/api/jobs/{job['id']}", params={"seen": job["version"]}).json()
        assert job["state"] in ("waiting", "running"), job
    painter.http.delete(f"/api/jobs/{job['id']}")
    assert painter.outcome(job)["state"] in ("cancelled", "done")
    assert draw(painter, ask)["runs"][0]["kept"]
