"""The style of a reference picture, and several pictures in the style of a first one."""

import pytest
import torch
from quick import EDITS, PROMPT, drawn, gap, make

import stableflow as sf
from stableflow.editing.methods.restyle import Restyle
from stableflow.errors import FingerprintError, InputError


@pytest.fixture(scope="module")
def editor(model):
    return make("alike", model)


@pytest.fixture(scope="module")
def first(editor):
    return drawn(editor)


def test_every_prompt_has_a_noise_of_its_own_and_does_not_depend_on_others(editor, first):
    both, again = (editor.edit(first, EDITS) for _ in range(2))
    assert torch.equal(both.latents, again.latents)
    alone = editor.edit(first, EDITS[1])
    assert gap(both.latents[1:], alone.latents) <= 1e-4
    same = editor.edit(first, PROMPT)
    assert gap(same.latents, first.latents) > 1e-2, "the source's own prompt is another picture"
    assert gap(editor.edit(first, EDITS[1], seed=3).latents, alone.latents) > 1e-2


def test_the_first_picture_is_read(editor, first):
    other = editor.generate("a blue dog", seed=2, num_steps=3)
    one, two = (editor.edit(source, EDITS[0], seed=5).latents for source in (first, other))
    assert gap(one, two) > 1e-3, "noise and prompt are the same, what is read is not"
    shared = make("alike", editor.model, kv_memory="share")
    with pytest.raises(InputError, match="must be kept"):
        shared.edit(drawn(shared), EDITS[0])


def test_a_picture_in_its_own_style_is_itself(editor, first):
    same = sf.restyle(editor, first, first)
    assert gap(same.latents, first.latents) <= 1e-4
    assert torch.equal(sf.restyle(editor, first, first, strength=0.0).images, first.images)


def test_the_style_of_a_picture(editor, first):
    picture = torch.linspace(0, 1, 3 * 16 * 16).reshape(3, 16, 16)
    styled = sf.restyle(editor, first, picture, showing="a red cat")
    assert gap(styled.latents, first.latents) > 1e-3
    told = styled.recipe["editor"]
    assert told["name"] == "restyle" and told["style"]["prompt"] == "a red cat"
    half = sf.restyle(editor, first, picture, showing="a red cat", strength=0.5)
    assert gap(half.latents, first.latents) > 1e-4 and gap(half.latents, styled.latents) > 1e-4


def test_what_cannot_be_a_reference(editor, first):
    with pytest.raises(InputError, match="showing is missing"):
        sf.restyle(editor, first, torch.rand(3, 16, 16))
    with pytest.raises(FingerprintError, match="times"):
        sf.restyle(editor, first, editor.generate(PROMPT, seed=2, num_steps=4))
    with pytest.raises(InputError, match="has none"):
        Restyle(editor.model).edit(first, PROMPT)
