"""Turns refer to turn 0, branch, come back from disk to the last bit, and follow an edit's own path."""

import json

import pytest
import torch
from test_stable_flow import LAYERS, generated, inverted

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.editing.turns import Session
from stableflow.editing.wording import reworded
from stableflow.errors import InputError, LoadError
from stableflow.region import Region


def begun(model, make=generated, **settings):
    return Session(sf.StableFlow(model, layers=LAYERS, **settings), make(model))


@pytest.mark.parametrize("make", [generated, inverted])
def test_a_turn_is_an_edit_of_turn_0_with_all_words_so_far(model, make):
    session = begun(model, make)
    session.edit({"red": "blue"})
    second = session.edit({"dog": "cat"})
    assert second.prompts == ("a blue cat",)
    assert torch.equal(second.latents, session.editor.edit(session.source, "a blue cat").latents)


def test_the_strength_that_a_turn_found_is_the_turns(model):
    session = begun(model)
    found = session.edit({"red": "blue"}, strength="auto")
    strength = session.current.editor.strength
    assert strength == found.recipe["auto"]["strength"][0] and session.editor.strength is None
    assert torch.equal(session.editor.edit(session.source, "a blue dog", strength=strength).latents, found.latents)


def test_what_is_undone_stays_and_the_next_turn_is_a_branch(model):
    session = begun(model)
    for change in ({"red": "blue"}, {"dog": "cat"}, {"blue": "red"}):
        session.edit(change)
    session.undo(2)
    assert session.prompt == "a blue dog"
    session.edit("a blue dog on the grass")
    assert [(turn.number, turn.before) for turn in session.turns] == [(1, 0), (2, 1), (3, 2), (4, 1)]
    assert [turn.number for turn in session.history] == [1, 4]
    session.go(3)
    assert session.prompt == "a red cat"
    session.go(0)
    assert (session.prompt, session.history) == ("a red dog", ())
    for wrong in (lambda: session.undo(), lambda: session.go(5), lambda: session.go(-1)):
        with pytest.raises(InputError):
            wrong()


def test_a_later_turn_keeps_what_a_region_before_it_was_free_to_change(model):
    session, size = begun(model), tuple(generated(model).images.shape[-2:])
    left, below = Region.box(0, 0, 6, 16, size), Region.box(8, 8, 8, 8, size)
    first = session.edit({"red": "blue"}, region=left, exact=False)
    second = session.edit({"dog": "cat"}, region=below, exact=False)
    direct = session.editor.edit(session.source, "a blue cat", region=left | below, exact=False)
    assert torch.equal(second.latents, direct.latents)
    assert not torch.equal(first.latents, second.latents)
    everywhere = begun(model)
    everywhere.edit({"red": "blue"})
    with pytest.raises(InputError, match=r"rebase\(\)"):
        everywhere.edit({"dog": "cat"}, region=left)


@pytest.mark.parametrize("make", [generated, inverted])
def test_after_rebase_turns_follow_the_path_of_the_turn_itself(model, make):
    session = begun(model, make)
    first = session.edit({"red": "blue"}, layers="all")
    session.rebase()
    source = session.base_source(1)
    assert source.fingerprint.prompt == "a blue dog" and torch.equal(source.latents, first.latents)
    size = tuple(first.images.shape[-2:])
    second = session.edit({"dog": "cat"}, region=Region.box(0, 0, 8, 16, size))
    assert session.current.base == 1
    assert torch.equal(second.images[..., 11:], first.images[..., 11:]), "outside it shows turn 1, not the source"
    third = session.edit({"blue": "car"}, region=Region.box(0, 0, 8, 16, size))
    assert session.current.base == 1 and third.prompts == ("a car cat",)


@pytest.mark.parametrize("name", ["sdedit", "flowedit"])
def test_editors_without_a_path_take_turns_too(model, name):
    editor = EDITORS[name](model, num_steps=3, **({"n_max": 2} if name == "flowedit" else {}))
    session = Session(editor, editor.invert(torch.rand(3, 16, 16), "a red dog"))
    first = session.edit({"red": "blue"})
    session.rebase()
    again = session.edit({"dog": "cat"}, strength=0)
    assert torch.equal(again.latents, first.latents)


@pytest.mark.parametrize("make", [generated, inverted])
def test_a_session_comes_back_from_disk_to_the_last_bit(model, tmp_path, make):
    session = begun(model, make)
    session.edit({"red": "blue"}, region=Region.box(0, 0, 8, 16, tuple(session.source.images.shape[-2:])))
    session.undo()
    session.edit({"dog": "cat"})
    session.rebase()
    session.edit({"red": "car"}, strength=0.5)
    session.save(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("turn-*.safetensors")}
    loaded = Session.load(tmp_path, session.editor)
    assert (loaded.at, loaded.prompt, loaded.bases) == (3, "a car cat", (0, 2))
    for turn, other in zip(session.turns, loaded.turns, strict=True):
        assert torch.equal(turn.result.images, other.result.images)
        assert torch.equal(turn.result.latents, other.result.latents)
        assert (turn.region, turn.editor, turn.base) == (other.region, other.editor, other.base)
    assert torch.equal(loaded.edit({"car": "red"}).latents, session.edit({"car": "red"}).latents)
    loaded.save(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "turns that are there are left alone"
    assert len(Session.load(tmp_path, session.editor).turns) == 4


def test_a_source_alone_is_a_session_without_turns(model, tmp_path):
    source = generated(model)
    source.save(tmp_path)
    assert Session.load(tmp_path, sf.StableFlow(model, layers=LAYERS)).turns == ()


DAMAGE = {
    "at": lambda tree: tree | {"at": 7},
    "bases": lambda tree: tree | {"bases": [0, 9]},
    "format": lambda tree: tree | {"format": 2},
    "source": lambda tree: tree | {"source": "0" * 64},
    "before": lambda tree: tree | {"turns": [tree["turns"][0] | {"before": 1}]},
    "twice": lambda tree: tree | {"turns": tree["turns"] * 2},
    "no file": lambda tree: tree | {"turns": [*tree["turns"], tree["turns"][0] | {"number": 3}]},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tree_is_one_error(model, tmp_path, damage):
    session = begun(model)
    session.edit({"red": "blue"})
    session.save(tmp_path)
    tree = json.loads((tmp_path / "turns.json").read_text())
    (tmp_path / "turns.json").write_text(json.dumps(DAMAGE[damage](tree)))
    with pytest.raises(LoadError, match=r"turn"):
        Session.load(tmp_path, session.editor)


def test_words_are_changed_whole_and_once():
    assert reworded("a red dog, redder than red wine", {"red  dog": "dog"}) == "a dog, redder than red wine"
    assert reworded("a dog wearing a hat", {"wearing a hat": ""}) == "a dog"
    assert reworded("a dog", {"dog": "cat", "cat": r"\1 bird"}) == r"a \1 bird"
    for prompt, change in [("a red dog", {"re": "blue"}), ("a red red dog", {"red": "x"}), ("a dog", {"a dog": ""}),
                           ("a dog", {}), ("a dog", {"": "x"})]:  # fmt: skip
        with pytest.raises(InputError):
            reworded(prompt, change)
