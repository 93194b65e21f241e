"""What the page asks for comes out as the Python API makes it, and can be made again anywhere."""

import ast
import io
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from app_tools import BLUE, DOG, PICTURE, QUICK
from PIL import Image
from typer.testing import CliRunner

import stableflow as sf
from stableflow.cli import app as launcher
from stableflow.cli.main import app as command

CAT, BLACK = "a white cat sitting on the grass at noon", "a black cat sitting on the grass at noon"


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def masked(regular):
    """An edit of an own picture within a drawn mask."""
    picture = regular.upload(PICTURE.read_bytes())
    marked = Image.new("L", (64, 64))
    marked.paste(255, (16, 8, 56, 60))
    buffer = io.BytesIO()
    marked.save(buffer, format="PNG")
    mask = regular.upload(buffer.getvalue())
    ask = {
        "prompt": CAT,
        "picture": picture["id"],
        "to": [BLACK],
        "mask": mask["id"],
        "strength": 0.7,
        "preset": "fast",
        "steps": 3,
    }
    return regular.edit(ask)


def test_an_edit_is_what_python_makes(regular, tiny):
    entry = regular.edit(QUICK)
    editor = sf.StableFlow(tiny)
    wanted = editor.edit(editor.generate(DOG, seed=1, num_steps=3), [BLUE])
    assert np.array_equal(pixels(regular.file(entry, "0/edit_1.png")), np.asarray(sf.to_pil(wanted.images[0])))


def test_the_second_edit_uses_the_kept_source_and_says_so(guest):
    first, second = guest.edit(QUICK), guest.edit(QUICK | {"to": ["a green dog standing on the grass at noon"]})
    assert [entry["runs"][0]["kept"] for entry in (first, second)] == [False, True]
    assert second["runs"][0]["nfe"]["edit"] == 3 and second["runs"][0]["seconds"] > 0


def test_strengths_seeds_and_editors_make_grids(guest):
    strengths = guest.edit(QUICK | {"strengths": [0, 1]})
    assert [run["strength"] for run in strengths["runs"]] == [0, 1]
    assert np.array_equal(pixels(guest.file(strengths, "0/edit_1.png")), pixels(guest.file(strengths, "0/source.png")))
    seeds = guest.edit(QUICK | {"seeds": [1, 2], "seed": None})
    assert not np.array_equal(pixels(guest.file(seeds, "0/source.png")), pixels(guest.file(seeds, "1/source.png")))
    compared = guest.edit(QUICK | {"editors": ["reprompt", "stable-flow"], "editor": "reprompt"})
    assert [run["editor"] for run in compared["runs"]] == ["reprompt", "stable-flow"]


def test_outside_the_mask_the_given_pixels_stay(regular, masked):
    given, edited = pixels(PICTURE.read_bytes()), pixels(regular.file(masked, "0/edit_1.png"))
    assert edited.shape == given.shape and not np.array_equal(edited, given)
    assert np.array_equal(edited[:, :40], given[:, :40]) and np.array_equal(edited[:16], given[:16])


@pytest.mark.parametrize("which, way", [("drawn", "python"), ("masked", "command"), ("masked", "python")])
def test_the_lines_make_the_same_picture(regular, masked, which, way, tmp_path, monkeypatch):
    entry = masked if which == "masked" else regular.edit(QUICK | {"strength": 0.6})
    for file, name in (("given", "given.png"), ("mask", "mask.png")) if which == "masked" else ():
        (tmp_path / name).write_bytes(regular.file(entry, file))
    monkeypatch.chdir(tmp_path)
    if way == "python":
        exec(compile(entry["python"], "repeat.py", "exec"), {})
    else:
        outcome = CliRunner().invoke(command, shlex.split(entry["command"])[1:])
        assert outcome.exit_code == 0, outcome.output
    made = pixels((tmp_path / "out" / "0" / "edit_1.png").read_bytes())
    assert np.array_equal(made, pixels(regular.file(entry, "0/edit_1.png")))


@pytest.mark.parametrize("which", ["drawn", "masked"])
def test_a_png_brings_everything_back(regular, masked, which):
    entry = masked if which == "masked" else regular.edit(QUICK | {"strength": 0.3, "editor": "sdedit"})
    data = regular.file(entry, "0/edit_1.png")
    restored = regular.upload(data)["restored"]
    assert restored["notes"] == []
    again = regular.edit(restored["ask"])
    assert np.array_equal(pixels(regular.file(again, "0/edit_1.png")), pixels(data))


def test_a_png_of_an_own_picture_asks_another_visitor_for_it(regular, masked, guest):
    restored = guest.upload(regular.file(masked, "0/edit_1.png"))["restored"]
    assert "picture" not in restored["ask"] and "give that picture again" in restored["notes"][0]
    assert restored["ask"]["prompt"] == CAT and restored["ask"]["strength"] == 0.7


def test_a_session_can_be_taken_away(regular, tiny, tmp_path):
    entry = regular.edit(QUICK)
    job = regular.outcome(regular.http.post(f"/api/history/{entry['id']}/session").json())
    assert job["state"] == "done", job["error"]
    with zipfile.ZipFile(io.BytesIO(regular.file(entry, "session.zip"))) as archive:
        archive.extractall(tmp_path)
    source = sf.Source.load(tmp_path / "session")
    result = sf.StableFlow(tiny).edit(source, [BLUE])
    assert np.array_equal(np.asarray(sf.to_pil(result.images[0])), pixels(regular.file(entry, "0/edit_1.png")))


def test_a_word_is_found_and_a_point_explained(regular):
    found = regular.run("where", QUICK | {"where": "word:dog"})["result"]
    assert 0 < found["share"] < 1 and found["mask"].startswith("data:image/png")
    seen = regular.run("why", QUICK | {"point": [32, 40]})["result"]
    assert set(seen["groups"]) == {"vital", "other"} and [shown["prompt"] for shown in seen["passes"]] == [DOG, BLUE]
    looks = seen["passes"][1]["groups"]["vital"]
    assert abs(looks["image_sum"] + sum(looks["words"]) + looks["rest"] - 1) < 0.01


def test_history_is_listed_opened_and_deleted(guest):
    entry = guest.edit(QUICK)
    assert [kept["id"] for kept in guest.http.get("/api/history").json()] == [entry["id"]]
    again = guest.http.post(f"/api/history/{entry['id']}/again").json()
    assert again["ask"]["to"] == [BLUE] and again["entry"]["id"] == entry["id"]
    assert guest.http.delete(f"/api/history/{entry['id']}").status_code == 200
    assert guest.http.get("/api/history").json() == []


def test_the_command_imports_the_app_only_when_it_is_called():
    tree = ast.parse(Path(launcher.__file__).read_text(encoding="utf-8"))
    names = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert "typer" in names and not [name for name in names if name.startswith(("stableflow.app", "uvicorn"))]


def test_tasks_and_moves_repeat_themselves(regular):
    both = "a white cat sitting on the grass at noon next to a ball"
    removed = QUICK | {"prompt": both, "to": [CAT], "task": "remove"}
    behind = QUICK | {"task": "background", "to": ["a red dog standing on the beach at noon"]}
    moved = QUICK | {"to": [DOG], "move": {"dx": 8, "copy": True}, "where": "box:16,24,40,36"}
    for ask, flag in ((removed, "--task remove"), (behind, "--task background"), (moved, "--editor move")):
        entry = regular.edit(ask)
        assert flag in entry["command"]
        data = regular.file(entry, "0/edit_1.png")
        assert not np.array_equal(pixels(data), pixels(regular.file(entry, "0/source.png")))
        restored = regular.upload(data)["restored"]
        assert restored["notes"] == [], restored
        assert np.array_equal(pixels(regular.file(regular.edit(restored["ask"]), "0/edit_1.png")), pixels(data))


def test_the_least_strength_is_found_and_repeats_itself(regular):
    entry = regular.edit(QUICK | {"strength": "auto", "steps": 2})
    assert "--strength auto" in entry["command"] and "strength='auto'" in entry["python"]
    data = regular.file(entry, "0/edit_1.png")
    restored = regular.upload(data)["restored"]
    assert restored["notes"] == [] and 0 <= restored["ask"]["strength"] <= 1
    assert np.array_equal(pixels(regular.file(regular.edit(restored["ask"]), "0/edit_1.png")), pixels(data))
