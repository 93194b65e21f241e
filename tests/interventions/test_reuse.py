"""Layers that are left out in some passes, and that nothing measures or reads meanwhile."""

import pytest
import torch
from families import FAMILIES
from models.conformance import PROMPTS, ROUNDING, every, gap, model_of, noise, square
from test_interventions import module_state, run

import stableflow as sf
from stableflow.errors import InterventionError
from stableflow.interventions import Bypass, KVStore, RecordKV, ReuseResidual

LAYERS = [1, 2, 4]
SPARED = {0.7, 0.5}
FIRST_ONLY = ReuseResidual(LAYERS, {0.8})  # nothing has been computed before it


@pytest.fixture
def rows(model):
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(3))
    return latents, model.encode_prompt(["a red dog"])


def velocities(model, rows, *interventions, times=(0.8, 0.7, 0.6, 0.5), same=False):
    latents, conditioning = rows
    with model.attach(*interventions):
        return [
            model.velocity(latents * (1 if same else t), t, conditioning, guidance_scale=2.0)
            for t in ((times[0],) * len(times) if same else times)
        ]


def test_every_second_pass_is_computed_and_the_others_are_near(model, rows):
    full, reused = velocities(model, rows), velocities(model, rows, ReuseResidual(LAYERS, SPARED))
    assert torch.equal(full[0], reused[0]) and torch.equal(full[2], reused[2])
    for computed, approximate in zip(full[1::2], reused[1::2]):
        assert 0 < (computed - approximate).abs().max() < 0.5 * computed.abs().max()


def test_what_is_reused_is_the_residual(model, rows):
    """In a pass like the one before, nothing is lost but the rounding of (output - input) + input."""
    full, reused = velocities(model, rows, same=True), velocities(model, rows, ReuseResidual(LAYERS, {0.8}), same=True)
    assert max((a - b).abs().max() for a, b in zip(full, reused)) <= 1e-5


def test_blocks_are_really_left_out(model, rows):
    calls = []
    handle = model.layers[2].block.norm.register_forward_hook(lambda *_: calls.append(1))
    velocities(model, rows, ReuseResidual(LAYERS, SPARED))
    handle.remove()
    assert len(calls) == 2


def test_nothing_to_leave_out(model, rows):
    full = velocities(model, rows)
    for off in (ReuseResidual(LAYERS, ()), ReuseResidual([], SPARED), ReuseResidual(LAYERS, {0.1}), FIRST_ONLY):
        assert all(torch.equal(a, b) for a, b in zip(full, velocities(model, rows, off)))


@pytest.mark.parametrize("own_forward", [False, True])
def test_detaching_leaves_no_trace(model, pipeline, rows, own_forward):
    block = model.layers[1].block
    if own_forward:
        block.forward = block.forward  # as accelerate leaves it
    try:
        before, plain = module_state(pipeline), velocities(model, rows)
        with pytest.raises(RuntimeError), model.attach(ReuseResidual(LAYERS, SPARED)):
            model.velocity(rows[0], 0.8, rows[1], guidance_scale=2.0)
            raise RuntimeError
        assert module_state(pipeline) == before and ("forward" in vars(block)) == own_forward
        assert all(torch.equal(a, b) for a, b in zip(plain, velocities(model, rows)))
    finally:
        vars(block).pop("forward", None)


def test_nothing_is_measured_on_an_approximation(model, rows):
    for outer, inner in ((ReuseResidual(LAYERS, SPARED), Bypass([0])), (Bypass([0]), ReuseResidual(LAYERS, SPARED))):
        with model.attach(outer), pytest.raises(InterventionError, match="cannot be measured"):
            run(model, *rows, inner)
    with model.attach(ReuseResidual(LAYERS, SPARED)), pytest.raises(InterventionError, match="cannot be measured"):
        sf.measure_vitality(model, ["a red dog", "a blue cat"], similarity="pixels", num_steps=1)


def test_what_is_left_out_cannot_be_recorded(model, rows):
    with pytest.raises(InterventionError, match=r"\{1: 0"):
        velocities(model, rows, ReuseResidual(LAYERS, SPARED), RecordKV([1], KVStore()))


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_every_family_have_residuals(name):
    family = FAMILIES[name]
    model = model_of(family)
    latents, conditioning = noise(model, square(family), 1), model.encode_prompt(PROMPTS[:1])

    def twice(*interventions):
        with model.attach(*interventions):
            return [model.velocity(latents, 0.8, conditioning, guidance_scale=family.guided[0]) for _ in range(2)]

    full, reused = twice(), twice(ReuseResidual(every(model), {0.8}))
    assert torch.equal(full[0], reused[0]) and 0 < gap(full[1], reused[1]) <= ROUNDING
