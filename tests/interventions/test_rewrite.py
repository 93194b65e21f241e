"""Features captured, patched and taken away: in every family, at the tokens, layers and times that were asked for."""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES
from tiny_flux import SIZE

import stableflow as sf
from stableflow.errors import InputError, InterventionError, UnknownNameError

PROMPT, OTHER = "a red dog standing on the grass", "a blue cat standing on the snow"
T = 0.6


@pytest.fixture(params=["FLUX.1", "FLUX.2-klein", "SD3", "Z-Image"])
def any_model(request):
    return sf.wrap(FAMILIES[request.param].make())


def noise(model):
    shape = (1, *model.latent_shape(SIZE, SIZE))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def velocity(model, prompt, *interventions, t=T, besides=None):
    """The velocity under a prompt; what the model reads besides the text stream, such as pooled text, of another."""
    conditioning = model.encode_prompt([prompt])
    if besides is not None:
        text = {"encoder_hidden_states": conditioning.tensors["encoder_hidden_states"]}
        conditioning = replace(conditioning, tensors={**model.encode_prompt([besides]).tensors, **text})
    with sf.attach(model, *interventions):
        return model.velocity(noise(model), t, conditioning, guidance_scale=1.0)


def test_capturing_changes_nothing(any_model):
    layers = range(len(any_model.layers))
    assert torch.equal(velocity(any_model, PROMPT, sf.Capture(layers)), velocity(any_model, PROMPT))


@pytest.mark.parametrize("layer", [0, 2])
def test_both_streams_carry_the_pass(any_model, layer):
    """Patched with another prompt's features, both streams after any layer, the rest of the pass is the other's."""
    if any_model.family.name == "Z-Image":
        with pytest.raises(InterventionError, match="does not say where its text tokens are"):
            velocity(any_model, OTHER, sf.Capture([0], "text"))
        return
    image, text = sf.Capture([layer], "image"), sf.Capture([layer], "text")
    other = velocity(any_model, OTHER, image, text)
    patched = velocity(any_model, PROMPT, sf.Patch(image), sf.Patch(text), besides=OTHER)
    assert (patched - other).abs().max() < 1e-5
    assert (velocity(any_model, PROMPT, sf.Patch(image), besides=OTHER) - other).abs().max() > 1e-3


def test_ones_own_features_change_nothing(any_model):
    captured = sf.Capture([0, 1])
    plain = velocity(any_model, PROMPT, captured)
    assert torch.equal(velocity(any_model, PROMPT, sf.Patch(captured)), plain)


def test_only_the_tokens_and_times_asked_for(model):
    before, after = sf.Capture([1]), sf.Capture([1])
    velocity(model, PROMPT, before)
    velocity(model, PROMPT, sf.Ablate([1], [2, 5], stream="image"), after)
    changed = (before.at(1, T) != after.at(1, T)).any(-1).flatten()
    assert changed.nonzero().flatten().tolist() == [2, 5]
    mean = before.at(1, T).mean(1)
    assert torch.equal(after.at(1, T)[:, 2], mean) and torch.equal(after.at(1, T)[:, 5], mean)
    late = sf.Ablate([1], [2], stream="image", when=(0.0, 0.5))
    assert torch.equal(velocity(model, PROMPT, late), velocity(model, PROMPT))


def test_half_a_patch_is_half_way(model):
    own, other, half = sf.Capture([1]), sf.Capture([1]), sf.Capture([1])
    velocity(model, PROMPT, own)
    velocity(model, OTHER, other)
    velocity(model, PROMPT, sf.Patch(other, tokens=[3], weight=0.5), half)
    middle = (own.at(1, T)[:, 3] + other.at(1, T)[:, 3]) / 2
    assert torch.allclose(half.at(1, T)[:, 3], middle, atol=1e-6)


def test_words_that_are_knocked_out_have_no_say(model):
    """With the text gone after layer 0 in both streams' view, the prompts differ by layer 0 and pooled text alone."""
    gone = sf.Ablate([0], stream="text", by="zero")
    gap = (velocity(model, PROMPT) - velocity(model, OTHER)).abs().mean()
    left = (velocity(model, PROMPT, gone) - velocity(model, OTHER, gone)).abs().mean()
    assert left < gap


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sf.Ablate([99]), InputError, "layers \\[99\\] are out of range"),
        (lambda: sf.Ablate([0], [10**6]), InputError, "this stream has"),
        (lambda: sf.Ablate([0], by="half"), UnknownNameError, "way to ablate"),
        (lambda: sf.Patch(sf.Capture([0])), InterventionError, "Nothing was captured of layer 0"),
    ],
    ids=["layer", "token", "way", "empty"],
)
def test_refused(model, make, error, message):
    with pytest.raises(error, match=message):
        velocity(model, PROMPT, make())
