"""strength="auto": the least that makes each edit, found again by its recipe; what is not made is told."""

import pytest
import torch
from quick import make

import stableflow as sf
from stableflow.editing.dial import DIAL, dial_weight
from stableflow.editing.leaning import judged, leaning, not_made
from stableflow.editing.least import CUT, FINEST, moved, progress
from stableflow.editing.run import Run
from stableflow.editing.wishes import Edit
from stableflow.errors import InputError
from stableflow.region import Region

SOURCE, POSE, PLACE = (f"a red dog {pose} on the {place} at noon" for pose, place in
                       [("standing", "grass"), ("sitting", "grass"), ("standing", "beach")])  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return sf.load("tiny")


@pytest.fixture(scope="module")
def source(tiny):
    return sf.StableFlow(tiny).generate(SOURCE, seed=1, num_steps=8)


@pytest.fixture(scope="module")
def found(tiny, source):
    return sf.StableFlow(tiny).edit(source, [POSE, PLACE], strength="auto")


def test_the_picture_leans_to_the_words_that_drew_it(tiny, source):
    run = Run(sf.StableFlow(tiny), source, [POSE, PLACE])
    free = sf.StableFlow(tiny, layers=[]).edit(source, [POSE, PLACE])
    with torch.no_grad():
        assert (leaning(run, run.rows(run.clean)) < -0.1).all()
        assert (leaning(run, free.latents) > 0).all()
    assert run.nfe["edit"] == 4


def test_the_least_strength_makes_each_edit_and_less_does_not(tiny, source, found):
    auto = found.recipe["auto"]
    assert all(0 < strength < 1 for strength in auto["strength"]) and all(made >= CUT for made in auto["progress"])
    editor = sf.StableFlow(tiny)
    less = editor.edit(source, [Edit(p, strength=s - FINEST) for p, s in zip([POSE, PLACE], auto["strength"])])
    run = Run(editor, source, [POSE, PLACE])
    free = editor.edit(source, [Edit(POSE, strength=1.0), Edit(PLACE, strength=1.0)])
    with torch.no_grad():
        start, end = leaning(run, run.rows(run.clean)), leaning(run, free.latents)
        gone = moved(less.latents, run.clean, free.latents)
        assert (progress(leaning(run, less.latents), start, end, gone) < CUT).all()
    assert found.recipe["nfe"]["edit"] == 5 * 8 + 6 * 2


def test_what_was_found_draws_the_same_pictures_again(tiny, source, found):
    editor, strengths = sf.StableFlow(tiny), found.recipe["edit_strength"]
    again = editor.edit(source, [Edit(p, strength=s) for p, s in zip([POSE, PLACE], strengths)])
    assert torch.equal(again.latents, found.latents) and again.recipe["edit_strength"] == strengths
    region = Region.box(8, 8, 48, 48, (64, 64))
    alone = editor.edit(source, POSE, strength="auto", region=region)
    assert "edit_strength" not in alone.recipe
    strength = alone.recipe["editor"]["strength"]
    assert torch.equal(editor.edit(source, POSE, strength=strength, region=region).latents, alone.latents)


@pytest.mark.parametrize("real", [True, False])
def test_strengths_by_row_equal_one_strength_for_all(model, real):
    editor = make("stable-flow", model)
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn = editor.generate("a red dog", seed=1, num_steps=3)
    source = editor.invert(picture, "a red dog", num_steps=3) if real else drawn
    size = tuple(source.images.shape[-2:])
    for region in (None, Region.box(0, 0, 7, 16, size)):
        rows = editor.edit(source, [Edit("a blue dog", strength=0.4), Edit("a red cat", strength=0.8)], region=region)
        for row, (prompt, strength) in enumerate([("a blue dog", 0.4), ("a red cat", 0.8)]):
            alone = editor.edit(source, prompt, strength=strength, region=region)
            assert (rows.latents[row] - alone.latents[0]).abs().max() < 1e-5


def test_moved_is_the_share_of_the_free_edits_way():
    source, free = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    free[..., :2, :2] = 2.0
    half, beside = free / 2, torch.zeros_like(free)
    beside[..., 2:, 2:] = 5.0
    edits = torch.cat([source, half, free, free + beside, -free])
    assert moved(edits, source, free.expand(5, -1, -1, -1)).tolist() == pytest.approx([0, 0.5, 1, 1, -1])


def test_the_dial_falls_from_all_to_nothing_and_never_stands_still():
    weights = [dial_weight(i / 40) for i in range(41)]
    assert weights[0] == 1 and weights[-1] == 0 and all(b < a for a, b in zip(weights, weights[1:]))
    assert [stop for stop, _ in DIAL] == pytest.approx([i / 10 for i in range(11)])


def test_an_edit_that_was_not_made_is_told(tiny, source, found):
    frozen = sf.StableFlow(tiny).edit(source, [POSE, PLACE], layers="all")
    told = not_made(frozen.prompts, judged(sf.StableFlow(tiny), frozen))
    assert len(told) == 2 and told[1].startswith(f"This edit was not made, as far as the model can tell: {PLACE!r}")
    assert not not_made(["a", "b"], [0.2, 0.0])


def test_what_auto_cannot_do_is_refused(model):
    editor = make("stable-flow", model)
    source = editor.generate("a red dog", seed=1, num_steps=2)
    encoded = model.encode_prompt(["a blue dog"])
    region = Region.box(0, 0, 6, 6, tuple(source.images.shape[-2:]))
    for wishes, more in [(encoded, {}), (Edit("a blue dog", strength=0.5), {}),
                         ([Edit("a", region=region)], {"together": True})]:  # fmt: skip
        with pytest.raises(InputError, match="auto"):
            editor.edit(source, wishes, strength="auto", **more)
    other = make("sdedit", model)
    with pytest.raises(InputError, match="one prompt a call"):
        other.edit(source, ["a blue dog", "a cat"], strength="auto")
    with pytest.raises(InputError, match="one strength"):
        other.edit(source, Edit("a blue dog", strength=0.5))
    with pytest.raises(InputError, match="bring a strength"):
        editor.edit(source, [Edit("a blue dog", strength=0.5), "a cat"])
