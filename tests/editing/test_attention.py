"""Attention of points in a source and its edits: rows sum to 1, the edit itself is untouched, replay is the source."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_flux import NUM_LAYERS

import stableflow as sf
from stableflow.editing.attention import sum_words
from stableflow.errors import InputError, InterventionError
from stableflow.interventions import AttentionMean, CaptureAttention
from stableflow.models.base import Word
from stableflow.models.model import DiffusersModel

POINTS = [(1, 0), (14, 6)]
EDITS = ["a red dog sitting on the grass", "a blue cat"]
INJECTED = (0, 3)


def make_source(model, kind, keep):
    editor = sf.StableFlow(model, layers=INJECTED, kv_memory=keep)
    if kind == "drawn":
        return editor, editor.generate("a red dog on the grass", seed=1, num_steps=3)
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    return editor, editor.invert(picture, "a red dog on the grass", num_steps=3, inversion=kind)


def total(attention):
    return attention.image.sum((-1, -2)) + attention.text.sum(-1) + attention.rest


@pytest.mark.parametrize("kind", ["drawn", "aligned", "paper"])
@pytest.mark.parametrize("keep", ["device", "share"])
def test_the_edit_is_the_same_and_attention_sums_to_one(model, kind, keep):
    editor, source = make_source(model, kind, keep)
    maps = sf.attention(editor, source, EDITS, points=POINTS)
    assert torch.equal(maps.images, editor.edit(source, EDITS).images), "watching must not change the picture"
    assert maps.injected == INJECTED and [edit.prompt for edit in maps.edits] == EDITS
    for attention in (maps.source, *maps.edits):
        assert attention.layers == tuple(range(NUM_LAYERS)) and attention.times == ()
        assert attention.image.shape == (NUM_LAYERS, 1, 1, 2, 4, 4)
        assert attention.words == tuple(attention.prompt.split())
        assert (total(attention) - 1).abs().max() < 1e-5
        assert attention.image.min() >= 0 and attention.rest.min() > 0


@pytest.mark.parametrize("kind", ["drawn", "aligned", "paper"])
def test_the_sources_passes_are_its_own(model, kind):
    """They are those at its recorded states (where inversion evaluated, under aligned replay), one by one."""
    editor, source = make_source(model, kind, "device")
    prompt, guidance = source.fingerprint.prompt, source.fingerprint.guidance_scale
    maps = sf.attention(editor, source, prompt, points=POINTS, guidance_scale=guidance, per_step=True)
    by_hand = AttentionMean(per_step=True)
    with model.attach(CaptureAttention(range(NUM_LAYERS), POINTS, (16, 16), by_hand)):
        for t in source.grid.times[:-1]:
            state = source.trajectory.at(t) + source.offsets.get(t, 0.0)
            model.velocity(state, t, source.conditioning, guidance_scale=guidance)
    text = source.conditioning.tensors["encoder_hidden_states"].shape[1]
    expected = by_hand.mean()[:, :, 0, :, :, text:].transpose(2, 3).unflatten(-1, (4, 4))
    assert maps.source.times == source.grid.times[:-1]
    assert (maps.source.image - expected).abs().max() < 1e-5
    if kind != "paper":  # whose edits leave the recorded path
        assert (maps.edits[0].image - expected).abs().max() < 1e-5, "one's own keys change nothing"


def test_injection_moves_attention_and_settings_are_passed_on(model):
    editor, source = make_source(model, "drawn", "device")
    maps = sf.attention(editor, source, EDITS[1], points=POINTS, per_step=True, per_head=True, layers=[0, 4])
    plain = sf.attention(editor, source, EDITS[1], points=POINTS, per_step=True, per_head=True, layers=[0, 4],
                         inject_layers=[])  # fmt: skip
    assert maps.edits[0].image.shape == (2, 3, 2, 2, 4, 4) and len(maps.edits[0].times) == 3
    assert plain.injected == () and torch.equal(plain.images, editor.edit(source, EDITS[1], layers=[]).images)
    assert (maps.edits[0].image - plain.edits[0].image).abs().max() > 1e-2
    early = sf.attention(editor, source, EDITS[1], points=POINTS, layers=[0, 4], t_window=(0.99, 1.0))
    assert torch.allclose(early.edits[0].image, maps.edits[0].image[:, :1].mean(2, keepdim=True), atol=1e-6)


def test_means(model):
    editor, source = make_source(model, "drawn", "device")
    edit = sf.attention(editor, source, EDITS, points=POINTS, layers=[1, 3, 4], per_head=True).edits[1]
    mean = edit.mean([4, 1])
    assert torch.allclose(mean.image, edit.image[[2, 0]].mean((0, 1, 2)))
    assert torch.allclose(mean.image_sum + mean.text.sum(-1) + mean.rest, torch.ones(2), atol=1e-5)
    with pytest.raises(InputError, match="in layers \\[1, 3, 4\\], not in \\[2\\]"):
        edit.mean([1, 2])
    with pytest.raises(InputError, match="an empty set"):
        edit.mean([])


def test_words_sum_over_their_tokens():
    text = torch.tensor([[0.1, 0.2, 0.3, 0.05]])
    words = [Word("sitting", (0, 2)), Word("dog", (1,))]
    assert torch.allclose(sum_words(text, words), torch.tensor([[0.4, 0.2]]))
    assert sum_words(text, []).shape == (1, 0)


def test_saving(model, tmp_path):
    editor, source = make_source(model, "drawn", "device")
    maps = sf.attention(editor, source, EDITS, points=POINTS, layers=[0, 1])
    arrays, listing = maps.save(tmp_path / "new")
    assert torch.equal(load_file(arrays)["edit_2/image"], maps.edits[1].image)
    content = json.loads(listing.read_text())
    layer = content["passes"]["edit_1"]["layers"]["1"]
    sums = [layer["image"][1], *layer["words"][1], layer["rest"][1]]
    assert sum(sums) == pytest.approx(1, abs=1e-4) and content["recipe"]["attention"]["points"] == [[1, 0], [14, 6]]


def test_points_outside_are_refused_before_anything_runs(model):
    editor, source = make_source(model, "drawn", "device")
    with pytest.raises(InputError, match="0 <= x < 16"):
        sf.attention(editor, source, EDITS, points=[(3, 16)])


def test_a_family_that_cannot_show_it_is_refused(model):
    editor, source = make_source(model, "drawn", "device")

    blocks = tuple(dataclasses.replace(blocks, watch=None) for blocks in model.family.blocks)
    silent = DiffusersModel(model.pipeline, dataclasses.replace(model.family, blocks=blocks), name="silent")
    editor = dataclasses.replace(editor, model=silent)
    with pytest.raises(InterventionError, match="'silent' cannot show its attention yet"):
        sf.attention(editor, source, EDITS, points=POINTS)
