"""Edits by the nodes are the library's own, leave no trace, and hold to what they say."""

import pytest
import torch
from on_host import NEGATIVE, PROMPT, STEPS, TARGET, Setting

import stableflow as sf

LAYERS = "double: 1; single: 0, 2"
NUMBERS = (1, 2, 4)
SAME = 1e-4  # float32: rounding of another order of the same sums


@pytest.fixture(scope="module")
def setting(pack, as_model, pipeline, model):
    return Setting(pack, as_model(pipeline.transformer), model)


@pytest.fixture(scope="module")
def drawn(setting):
    """One source, by the library and by the node."""
    library = sf.StableFlow(setting.library, layers=NUMBERS, kv_memory="device")
    return library, library.generate(PROMPT, seed=3, num_steps=STEPS, guidance_scale=3.5)


def apart(one, other):
    return float((one - other).abs().max())


def agree(what, one, other, limit=SAME):
    """Whether latents are the same; `-rP` shows by how much."""
    print(f"{what}: {apart(one, other):.1e} apart, of {float(other.abs().max()):.1f}")
    return apart(one, other) < limit


def test_the_source_is_the_librarys(setting, drawn):
    _, theirs = drawn
    ours = setting.source(theirs)
    assert agree("source", ours.picture, theirs.latents)
    assert len(ours.moments) == STEPS


@pytest.mark.parametrize("kept", [False, True])
def test_edits_equal_the_librarys(setting, drawn, kept):
    """With the source's keys and values kept, or read off the model again at each step."""
    library, theirs = drawn
    hold = setting.hold(LAYERS)
    ours = setting.source(theirs, keep=hold if kept else None)
    wanted = library.edit(theirs, TARGET, guidance_scale=3.5).latents
    assert agree("drawn edit", setting.edit(ours, hold), wanted)
    assert apart(wanted, theirs.latents) > 0.1 and apart(wanted, setting.free()) > 0.1  # else nothing was tested


def test_edits_of_an_inverted_picture_equal_the_librarys(setting, drawn):
    library, _ = drawn
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = library.invert(picture, PROMPT, num_steps=STEPS, nudge_scale=1.15)
    ours, sigmas = setting.node(
        "Invert", positive=setting.prompt(PROMPT), latent={"samples": theirs.path.at(0.0) / 1.15}, steps=STEPS,
        scheduler="simple", guidance=1.0, nudge=1.15, iterations=1, sigmas=setting.sigmas,
    )  # fmt: skip
    assert torch.equal(sigmas, setting.sigmas)
    for hold, layers in ((LAYERS, NUMBERS), ("all", "all")):
        wanted = library.edit(theirs, TARGET, layers=layers, guidance_scale=3.0).latents
        assert agree("edit of an inverted picture", setting.edit(ours, setting.hold(hold), guidance=3.0), wanted)
    same = setting.edit(ours, setting.hold("all"), prompt=PROMPT, guidance=1.0)
    assert agree("inverted picture back", same, theirs.latents)


def test_masked_edits_equal_the_librarys_and_keep_the_outside(setting, drawn):
    library, theirs = drawn
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 0:6] = 1.0
    ours, every = setting.source(theirs), setting.hold("all")
    edit = setting.edit(ours, every, mask=mask)
    wanted = library.edit(theirs, TARGET, region=sf.Region(mask), layers="all", guidance_scale=3.5).latents
    assert agree("masked edit", edit, wanted)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[2:6, 0:4] = False  # tokens of 4 pixels that the mask touches
    assert apart(edit[..., outside], ours.picture[..., outside]) < 1e-5
    assert apart(edit[..., ~outside], ours.picture[..., ~outside]) > 0.1


def test_the_dial_goes_from_the_source_to_the_free_edit(setting, drawn):
    ours = setting.source(drawn[1])
    edits = [setting.edit(ours, setting.dial(strength)) for strength in (0.0, 0.3, 0.7, 1.0)]
    distances = [apart(edit, edits[0]) for edit in edits]
    assert distances == sorted(distances) and distances[1] > 1e-3
    assert apart(edits[-1], setting.free()) < 1e-5


def test_the_dial_is_near_the_librarys(setting, drawn):
    """Not equal between its ends: keys are mixed after QK norm here, before it there."""
    library, theirs = drawn
    wanted = library.edit(theirs, TARGET, strength=0.5, guidance_scale=3.5).latents
    edit = setting.edit(setting.source(theirs), setting.dial(0.5))
    print(f"dial at 0.5: {apart(edit, wanted):.1e} apart, {apart(wanted, theirs.latents):.1e} from the source")
    assert 1e-3 < apart(edit, wanted) < 0.5 * apart(wanted, theirs.latents)


def test_edits_may_be_a_batch(setting, drawn):
    ours, hold = setting.source(drawn[1]), setting.hold(LAYERS)
    two = setting.edit(ours, hold, rows=2)
    assert two.shape[0] == 2
    assert apart(two, setting.edit(ours, hold)) < 1e-5


def test_negative_prompts_read_their_own_branch(setting, drawn):
    """Source and edit the same, all layers held: guided edits retrace a guided source, each branch by its own keys."""
    guided = setting.source(drawn[1], cfg=2.0, negative=NEGATIVE)
    back = setting.edit(guided, setting.hold("all"), prompt=PROMPT, cfg=2.0, negative=NEGATIVE)
    assert apart(back, guided.picture) < 1e-5
    edit = setting.edit(guided, setting.hold(LAYERS), cfg=2.0, negative=NEGATIVE)
    kept = setting.source(drawn[1], cfg=2.0, negative=NEGATIVE, keep=setting.hold(LAYERS))
    assert apart(setting.edit(kept, setting.hold(LAYERS), cfg=2.0, negative=NEGATIVE), edit) < 1e-5


def test_samplers_that_visit_a_time_twice(setting, drawn):
    ours = setting.source(drawn[1], sampler="heun")
    assert len(ours.moments) == 2 * STEPS - 1
    back = setting.edit(ours, setting.hold(LAYERS), prompt=PROMPT, sampler="heun")
    assert apart(back, ours.picture) < 1e-5


def test_nothing_is_left_behind(setting, drawn):
    ours, model = setting.source(drawn[1]), setting.model
    before = setting.free()
    options = repr(sorted(model.model_options["transformer_options"]))
    edit = setting.edit(ours, setting.hold(LAYERS))
    with pytest.raises(sf.StableFlowError):
        setting.edit(ours, setting.hold(LAYERS), sigmas=torch.linspace(1, 0, 4))  # ends within the run
    assert torch.equal(setting.free(), before)
    assert torch.equal(setting.edit(ours, setting.hold(LAYERS)), edit)
    assert repr(sorted(model.model_options["transformer_options"])) == options
    assert not model.wrappers and not model.model_options["transformer_options"].get("patches")


def test_two_packs_compose(setting, drawn):
    """Attention patches of others act beside ours."""
    called = []
    theirs = setting.model.clone()
    theirs.set_model_attn1_patch(lambda q, k, v, pe=None, attn_mask=None, extra_options=None: called.append(1) or {})
    ours = setting.source(drawn[1])
    edit = setting.edit(ours, setting.hold(LAYERS), model=theirs)
    assert called and apart(edit, setting.edit(ours, setting.hold(LAYERS))) < 1e-6
