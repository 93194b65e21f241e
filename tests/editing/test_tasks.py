"""Tasks: by name, on the command line, in recipes; what each chooses is what its edits do."""

from dataclasses import replace

import pytest
import torch
from quick import EDITS, drawn, gap, make

from stableflow.editing import TASKS
from stableflow.editing.drift import shift
from stableflow.editing.looking import split_words
from stableflow.editing.policy import POLICIES
from stableflow.editing.tasks import Task, as_task
from stableflow.editing.wishes import Edit
from stableflow.errors import InputError, UnknownNameError
from stableflow.region import Region

BOX = Region.box(0, 0, 8, 16, size=(16, 16))


@pytest.fixture(scope="module")
def editor(model):
    return make("stable-flow", model)


@pytest.fixture(scope="module")
def source(editor):
    return drawn(editor)


def test_a_task_is_its_settings_and_its_region(editor, source):
    done = editor.edit(source, EDITS, task="remove", region=BOX)
    said = editor.edit(source, EDITS, policy="region", away=0.5, region=BOX)
    assert torch.equal(done.latents, said.latents) and done.recipe["task"] == "remove"
    behind = editor.edit(source, EDITS, task="background", region=BOX)
    assert torch.equal(behind.latents, editor.edit(source, EDITS, policy="background", region=BOX, exact=False).latents)
    assert behind.region is None and done.region is not None


def test_a_task_of_another_editor_takes_along_what_both_have(editor, source):
    task = Task("softly", editor="sdedit", settings={"num_steps": 4})
    result = make("stable-flow", editor.model, strength=0.5).edit(source, EDITS, task=task)
    assert result.recipe["editor"]["name"] == "sdedit" and result.recipe["editor"]["strength"] == 0.5
    assert result.recipe["editor"]["num_steps"] == 4


def test_strength_goes_with_a_task(editor, source):
    moved = [
        gap(editor.edit(source, EDITS, task="remove", region=BOX, strength=s).latents, source.latents)
        for s in (0.0, 0.1, 1.0)
    ]
    assert moved[0] == 0 and min(moved[1:]) > 0 and moved[1] != moved[2]
    assert torch.equal(
        editor.edit(source, EDITS, task="remove", region=BOX, strength=1.0).latents,
        editor.edit(source, EDITS, task="remove", region=BOX).latents,
    )


def test_led_away_from_the_source_inside_the_region_alone(editor, source):
    plain, away = (editor.edit(source, EDITS, policy="region", region=BOX, away=by) for by in (0.0, 0.5))
    assert gap(plain.latents[..., :4], away.latents[..., :4]) > 1e-3
    assert gap(away.latents[..., 4:], source.latents[..., 4:].expand_as(away.latents[..., 4:])) <= 1e-6
    own = [Edit(EDITS[0], region=BOX), Edit(EDITS[1], region=~BOX)]
    both = editor.edit(source, own, policy="region", away=0.5)
    for row, wish in enumerate(own):
        alone = editor.edit(source, wish, policy="region", away=0.5)
        assert gap(both.latents[[row]], alone.latents) <= 1e-4, "a row keeps its own region"
    shared = editor.edit(drawn(editor.having(kv_memory="share")), own, policy="region", away=0.5)
    assert gap(shared.latents, both.latents) <= 1e-4


def test_edge_held_keeps_tokens_that_hold_any_of_the_outside(editor, source):
    side = editor.model.pixel_multiple
    ragged = Region.box(0, 0, side + 1, 16, size=(16, 16))  # one pixel into the second column of tokens
    held = editor.edit(source, EDITS, policy=POLICIES["background"], region=ragged, exact=False)
    plain = editor.edit(
        source, EDITS, policy=POLICIES["background"], region=Region.box(0, 0, side, 16, size=(16, 16)), exact=False
    )
    assert torch.equal(held.latents, plain.latents)


@pytest.mark.parametrize(
    ("task", "error", "says"),
    [
        ("remov", UnknownNameError, "Unknown task 'remov'.*remove"),
        ("remove:all", InputError, "takes no details"),
    ],
)
def test_wrong_tasks_are_one_error(task, error, says):
    with pytest.raises(error, match=says):
        as_task(task)


def test_a_task_refuses_settings_that_contradict_it(editor, source):
    with pytest.raises(InputError, match="so does layers"):
        editor.edit(source, EDITS, task="remove", region=BOX, layers=[1])


def test_words_kept_and_lost():
    assert split_words("a dog wearing a red hat on a red rug", "a dog on a red rug") == (
        ["a", "dog", "on", "a", "red", "rug"], ["wearing", "a", "red", "hat"],
    )  # fmt: skip
    assert split_words("a dog with a ball", "a dog sitting") == (["a", "dog"], ["with", "a", "ball"])
    assert split_words("a dog", "a red dog") == (["a", "dog"], [])


def test_a_removal_that_removes_no_word_is_refused(editor, source):
    with pytest.raises(InputError, match="has every word"):
        editor.edit(source, "a red dog in the snow", task="remove")


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_says_in_one_line_what_it_is_for(name):
    assert TASKS[name].__doc__.strip().split("\n")[0].endswith(".")


def test_what_must_stay_is_a_region(editor, source):
    kept = editor.edit(source, EDITS, keep=["dog"], policy="region")
    said = editor.edit(source, EDITS, region="~word:dog", policy="region")
    assert torch.equal(kept.images, said.images) and kept.recipe["region"] == said.recipe["region"]
    both = editor.edit(source, EDITS, keep=["dog", "red"], policy="region").region
    assert float((both.amount - kept.region.amount).max()) <= 0, "keeping more leaves less free"
    for wrong, says in (({"keep": ["dog"], "region": BOX}, "not both"), ({"keep": []}, "takes words")):
        with pytest.raises(InputError, match=says):
            editor.edit(source, EDITS, **wrong)


def test_outside_change_and_shift_are_in_every_result(editor, source):
    exact = editor.edit(source, EDITS, region=BOX)
    held = editor.edit(source, EDITS, region=BOX, exact=False, policy="free")
    assert exact.region.amount[..., 12:].max() == 0
    assert (
        max(exact.outside_change)
        < max(held.outside_change)
        == pytest.approx(float((held.images - source.images).abs()[..., 8:].mean((1, 2, 3)).max()), abs=1e-5)
    )
    assert editor.edit(source, EDITS, strength=0).outside_change == [0, 0]
    assert exact.recipe["outside_change"] == exact.outside_change and len(exact.shift) == 2


def test_shift_finds_by_how_much_a_picture_lies_beside_another():
    picture = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    moved = torch.cat([picture.roll((3, -5), (2, 3)), picture])
    assert shift(picture, moved) == [(-5, 3), (0, 0)]


def test_latents_are_freed_by_latent_pixels_and_the_rest_of_their_token_is_the_sources(editor, source):
    side, cell = editor.model.pixel_multiple, 16 // source.latents.shape[-1]
    ragged = Region.box(0, 0, side + 1, 16, size=(16, 16))
    fine, whole = (
        editor.edit(source, EDITS, policy=replace(POLICIES["region"], fine=fine), region=ragged, exact=False).latents
        for fine in (True, False)
    )
    first = -(-(side + 1) // cell)
    half = (..., slice(first, 2 * side // cell))
    assert half[1].start < half[1].stop
    assert gap(fine[half], source.latents[half].expand_as(fine[half])) <= 1e-6
    assert gap(whole[half], source.latents[half].expand_as(whole[half])) > 1e-3
    assert gap(fine[..., :first], source.latents[..., :first].expand_as(fine[..., :first])) > 1e-3
    assert torch.equal(fine, editor.edit(source, EDITS, policy="region", region=ragged, exact=False).latents)


def test_edits_that_stop_half_way_are_drawn_again_in_a_wider_place(editor, source, monkeypatch):
    wish = "a blue dog"
    monkeypatch.setattr("stableflow.editing.again.TOO_LITTLE", -9.0)
    enough = editor.edit(source, wish, task="replace")
    assert "again" not in enough.recipe
    monkeypatch.setattr("stableflow.editing.again.TOO_LITTLE", 9.0)
    again = editor.edit(source, wish, task="replace")
    first, second = (result.region.amount > 0 for result in (enough, again))
    assert bool((second | ~first).all()) and again.recipe["again"]["cut"] == 9.0
    assert again.recipe["nfe"]["edit"] > enough.recipe["nfe"]["edit"]
    said = editor.edit(source, wish, task="replace", region=again.recipe["region"])
    assert torch.equal(said.latents, again.latents) and "again" not in said.recipe
    box = Edit(wish, region=BOX)
    assert "again" not in editor.edit(source, box, task="replace").recipe, "what is drawn by hand is left alone"
