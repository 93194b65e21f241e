"""Tasks: by name, on the command line, in recipes; what each chooses is what its edits do."""

import pytest
import torch
from quick import EDITS, drawn, gap, make

from stableflow.editing import TASKS
from stableflow.editing.finding import without_lost
from stableflow.editing.policy import POLICIES
from stableflow.editing.tasks import Task, as_task
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
    said = editor.edit(source, EDITS, policy="region", region=BOX)
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
    assert moved[0] == 0 < moved[1] < moved[2]
    assert torch.equal(
        editor.edit(source, EDITS, task="remove", region=BOX, strength=1.0).latents,
        editor.edit(source, EDITS, task="remove", region=BOX).latents,
    )


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
        (3, InputError, "task must be a name"),
    ],
)
def test_wrong_tasks_are_one_error(task, error, says):
    with pytest.raises(error, match=says):
        as_task(task)


def test_a_task_refuses_settings_that_contradict_it(editor, source):
    with pytest.raises(InputError, match="so does layers"):
        editor.edit(source, EDITS, task="remove", region=BOX, layers=[1])


def test_lost_words():
    assert without_lost("a dog wearing a red hat on a red rug", "a dog on a red rug") == "a dog on a red rug"
    assert without_lost("a dog with a ball", "a dog sitting") == "a dog"
    with pytest.raises(InputError, match="has every word"):
        without_lost("a dog", "a red dog")


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_says_in_one_line_what_it_is_for(name):
    assert TASKS[name].__doc__.strip().split("\n")[0].endswith(".")
