"""The one dial of every editor, on the bundled model: 0 is the source, and more is further from it."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from quick import ALL, CORE, make

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.region import Region
from stableflow.scenes import caption, edit, sample

SCENES, STEPS, SIDE = range(0, 16, 2), 3, 32
STRENGTHS = (0.25, 0.6, 1.0)
MOVING = ("move",)  # how far things go, measured with it
SETTINGS = {
    "flowedit": {"num_steps": STEPS, "n_max": STEPS},
    "stable-flow": {},
    "reprompt": {},
    "alike": {},
    "brushes": {},
    "direct-inversion": {},
    "edit-friendly": {"num_steps": STEPS, "skip": 0},
    "dnaedit": {"num_steps": STEPS, "skip": 0},
    "polish": {"num_steps": STEPS, "steps": 3},
    "kv-edit": {},
    "cyclic": {"cycles": 1},
    "freqedit": {},
    "sam-flow": {"num_steps": STEPS, "n_max": STEPS, "n_avg": 1},
    "steered": {},
    "lomoe": {},
    "rf-solver-edit": {"num_steps": 2, "inject_steps": 1},
}


@cache
def tiny():
    return sf.load("tiny")


@cache
def cases():
    """Sources drawn from captions, each with the caption of another coat, pose or place."""
    drawn, editor = [], EDITORS["sdedit"](tiny())
    for seed in SCENES:
        scene = sample(random.Random(seed))
        name, values = [("colour", ("red", "blue")), ("pose", ("sitting", "jumping")), ("place", ("snow", "beach"))][
            seed % 3
        ]
        other = edit(scene, **{name: values[0] if getattr(scene, name) != values[0] else values[1]})
        drawn.append(
            (editor.generate(caption(scene), seed=seed, num_steps=STEPS, height=SIDE, width=SIDE), caption(other))
        )
    return drawn


def further(name, least):
    """Ask that more strength is further from the source, on the mean of the scenes, and full strength far."""
    editor = EDITORS[name](tiny(), **SETTINGS.get(name, {"num_steps": STEPS}))
    distances = np.zeros((len(SCENES), len(STRENGTHS)))
    for i, (source, prompt) in enumerate(cases()):
        for j, strength in enumerate(STRENGTHS):
            result = editor.edit(source, prompt, strength=strength)
            distances[i, j] = (result.images - source.images).square().mean().sqrt()
    means = [0.0, *distances.mean(0)]
    assert all(after >= before for before, after in zip(means, means[1:])), means
    assert means[1] < means[-1] and means[-1] > least, means


@pytest.mark.parametrize("name", CORE)
def test_more_strength_is_further_from_the_source(name):
    further(name, least=0.05)


@pytest.mark.parametrize("name", [name for name in ALL if name not in CORE and name not in MOVING])
def test_more_strength_is_further_in_the_newer_editors(name):
    further(name, least=0.02)


@pytest.mark.parametrize("name", [name for name in ALL if name not in MOVING and EDITORS[name].looks_for is None])
@pytest.mark.parametrize("real", [True, False])
def test_no_strength_is_the_source(model, name, real):
    editor = make(name, model)
    picture = torch.rand(3, 18, 18, generator=torch.Generator().manual_seed(0))
    steps = {"num_steps": 3} if editor.needs_path else {}
    source = editor.invert(picture, "a red dog", **steps) if real else editor.generate("a red dog", seed=1, num_steps=3)
    result = editor.edit(source, ["a blue dog", "a red cat"], strength=0)
    assert torch.equal(result.images, source.images.expand(2, -1, -1, -1))
    assert torch.equal(result.latents, source.latents.expand(2, -1, -1, -1))
    assert result.recipe["nfe"]["edit"] == 0
    size = source.images.shape[-2:]
    within = editor.edit(source, "a blue dog", strength=0, region=Region.box(0, 0, 6, 16, tuple(size)))
    given = source.images if source.given is None else source.given
    assert torch.equal(within.images[..., 9:], given[..., 9:]), "outside a region even strength 0 shows what was given"
    held = editor.edit(source, "a blue dog", strength=0, region=Region.everywhere(tuple(size)), exact=False)
    assert torch.equal(held.images, source.images) and held.recipe["exact"] is False


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), True])
def test_strength_outside_its_range_is_refused(model, name, strength):
    with pytest.raises(sf.StableFlowError, match="strength must"):
        make(name, model, strength=strength)


def test_the_dial_goes_with_a_region(model):
    editor = sf.StableFlow(model, layers=[0, 3], strength=0.6)
    source = editor.generate("a red dog", seed=1, num_steps=2)
    assert editor.edit(source, "a blue dog", region="box:0,0,8,8").region is not None
