"""Passes that compute a region's tokens alone: what they compute, leave, need and refuse."""

from contextlib import ExitStack

import pytest
import torch
from families import FAMILIES
from models.conformance import PROMPTS, ROUNDING, T, every, gap, model_of, noise, square
from test_interventions import module_state

from stableflow.errors import InterventionError, TokenLayoutError
from stableflow.interventions import Bypass, CaptureAttention, InjectKV, KVStore, LeaveOut, RecordKV
from stableflow.interventions.blend import Blend
from stableflow.region import Region

FLUX = FAMILIES["FLUX.1"]


@pytest.fixture(scope="module")
def flux():
    return model_of(FLUX)


@pytest.fixture(scope="module")
def box(flux):
    return Region.box(8, 0, 8, 7, size=square(FLUX)).whole(flux.pixel_multiple)


def recorded(model, size=None, **settings):
    store = KVStore(**settings)
    latents = noise(model, size or square(FLUX))
    passed(model, latents, RecordKV(every(model), store), prompts=PROMPTS[:1])
    store.finish()
    return store


def passed(model, latents, *interventions, prompts=PROMPTS):
    with model.attach(*interventions):
        return model.velocity(latents, T, model.encode_prompt(prompts), guidance_scale=2.0)


def tokens_of(region, model):
    height, width = region.size
    return int(region.tokens((height // model.pixel_multiple, width // model.pixel_multiple)).sum())


def test_the_tokens_outside_are_not_computed(flux, box):
    store, seen = recorded(flux), []
    with ExitStack() as stack:
        for layer in flux.layers:
            hook = layer.block.attn.to_q.register_forward_hook(
                lambda module, given, output: seen.append(output.shape[1])
            )
            stack.callback(hook.remove)
        passed(flux, noise(flux, square(FLUX), rows=2), LeaveOut(box, store))
    inside, text = tokens_of(box, flux), FLUX.text_lengths[0]
    assert inside < box.size[0] * box.size[1] // flux.pixel_multiple**2
    assert seen == [inside if layer.kind == "double" else inside + text for layer in flux.layers]


@pytest.mark.parametrize("settings", [{"precision": "fp8"}, {"device": "cpu"}, {"device": "cpu", "precision": "fp8"}])
def test_kept_elsewhere_or_in_one_byte_it_reads_what_injection_reads(flux, box, settings):
    store, free = recorded(flux, **settings), box.latents(noise(flux, square(FLUX)).shape[-2:])
    edits = torch.lerp(noise(flux, square(FLUX)), noise(flux, square(FLUX), rows=2, seed=1), free)
    whole = passed(flux, edits, InjectKV(every(flux), store, Blend(region=~box)))
    with store.prefetching(flux.device):
        part = passed(flux, edits, LeaveOut(box, store))
    assert gap(whole * free, part * free) <= ROUNDING


def test_injection_beside_it_acts_on_the_tokens_that_are_there(flux, box):
    """A weight inside the region, and rows with regions of their own of which the union is computed."""
    store, size = recorded(flux), square(FLUX)
    other = Region.box(0, 9, 10, 4, size=size).whole(flux.pixel_multiple)
    both = Region(torch.cat([box.amount, other.amount]))
    free = both.latents(noise(flux, size).shape[-2:])
    edits = torch.lerp(noise(flux, size), noise(flux, size, rows=2, seed=1), free)
    held = [
        InjectKV(every(flux), store, Blend(region=~both)),
        InjectKV(every(flux), store, Blend(0.3, region=both), parts=["value"]),
    ]
    whole = passed(flux, edits, *held)
    assert gap(whole * free, passed(flux, edits, LeaveOut(both, store), *held) * free) <= ROUNDING
    assert gap(whole * free, passed(flux, edits, held[0]) * free) > 1e-3, "the weight matters"


@pytest.mark.parametrize("name", ["FLUX.1", "SD3.5-medium", "Z-Image"])
def test_it_leaves_no_trace(name):
    family, model = FAMILIES[name], model_of(FAMILIES[name])
    size = square(family)
    region = Region.box(0, 0, size[1] // 2, size[0], size=size)
    store, before = recorded(model, size), module_state(model.pipeline)
    latents = noise(model, size)
    plain = passed(model, latents, prompts=PROMPTS[:1])
    passed(model, latents, LeaveOut(region, store), prompts=PROMPTS[:1])
    with pytest.raises(InterventionError, match="No source key"):
        passed(model, latents, LeaveOut(region, KVStore()), prompts=PROMPTS[:1])
    assert module_state(model.pipeline) == before
    assert torch.equal(plain, passed(model, latents, prompts=PROMPTS[:1]))


def test_watching_a_part_of_the_picture_is_refused(flux, box):
    store = recorded(flux)
    capture = CaptureAttention([0], [(1, 1)], square(FLUX), lambda *_: None)
    for watching in (capture, Bypass([1])):
        with pytest.raises(InterventionError, match="compute='all'"):
            passed(flux, noise(flux, square(FLUX)), LeaveOut(box, store), watching)
    with flux.attach(RecordKV([0], KVStore())), pytest.raises(InterventionError, match="leave the other block first"):
        passed(flux, noise(flux, square(FLUX)), LeaveOut(box, store))
    with flux.attach(LeaveOut(box, store)), pytest.raises(InterventionError, match="leave the other block first"):
        passed(flux, noise(flux, square(FLUX)), RecordKV([0], KVStore()))


def test_another_size_is_refused(flux):
    store, wider = recorded(flux), (FLUX.size, 2 * FLUX.size)
    with pytest.raises(TokenLayoutError, match="at the source's height and width"):
        passed(flux, noise(flux, wider), LeaveOut(Region.box(0, 0, 16, 16, size=wider), store), prompts=PROMPTS[:1])


def test_attention_of_its_own_kind_is_refused_and_not_wrong(flux, box, monkeypatch):
    store, attention = recorded(flux), flux.layers[2].block.attn

    def by_hand(attn, hidden_states, *args, **kwargs):
        return hidden_states

    monkeypatch.setattr(attention, "processor", by_hand)
    with pytest.raises(InterventionError, match="scaled_dot_product_attention 0 times"):
        passed(flux, noise(flux, square(FLUX)), LeaveOut(box, store), prompts=PROMPTS[:1])
