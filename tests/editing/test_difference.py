"""DDCM and edit-friendly inversion: one rule with other noises. The algebra in float64 over a toy flow."""

import dataclasses
import math

import pytest
import torch
from on_families import SOURCE, check_end_to_end, made, on_two_families

from stableflow.editing import EDITORS
from stableflow.editing.methods.ddcm import followed
from stableflow.errors import InputError
from stableflow.flow.stochastic import ancestral_sigma, mean
from stableflow.flow.time_grid import linear_time_grid

SHAPE = (1, 3, 4, 5)


def drawn(seed, count=None):
    generator = torch.Generator().manual_seed(seed)
    one = lambda: torch.randn(SHAPE, generator=generator, dtype=torch.float64)  # noqa: E731
    return one() if count is None else [one() for _ in range(count)]


def toy(seed):
    """A smooth field that mixes channels."""
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda z, t: torch.einsum("dc,bchw->bdhw", weights, torch.tanh(z)) * (1 + t) - 0.3 * z


SOURCE_FLOW, TARGET_FLOW, GRID = toy(1), toy(2), linear_time_grid(9)


def states(clean, noises):
    return {t: (1 - t) * clean + t * noise for t, noise in zip(GRID.times, noises)}


def edit_friendly(clean, noises, field, sigma):
    x = states(clean, noises)
    z = x[1.0]
    for t0, t1 in GRID.steps():
        sigma_z = x[t1] - mean(x[t0], SOURCE_FLOW(x[t0], t0), t0, t1, sigma(t0, t1))
        z = mean(z, field(z, t0), t0, t1, sigma(t0, t1)) + sigma_z
    return z


def ddcm(clean, noises, field, eta=1.0):
    x = states(clean, noises)
    z = x[1.0]
    for (t0, t1), noise in zip(GRID.steps(), noises[1:]):
        turn = field(z, t0) - SOURCE_FLOW(x[t0], t0)
        z = followed(z - x[t0], turn, clean, noise, t0, t1, eta)
    return z


def full(t0, t1):
    return t1


def test_full_sigma_with_fresh_noise_is_ddcm():
    clean, noises = drawn(3), drawn(4, GRID.num_steps + 1)
    gap = (edit_friendly(clean, noises, TARGET_FLOW, full) - ddcm(clean, noises, TARGET_FLOW)).abs().max()
    assert gap <= 1e-12
    other = edit_friendly(clean, noises, TARGET_FLOW, ancestral_sigma)
    assert (other - ddcm(clean, noises, TARGET_FLOW)).abs().max() > 0.1


def test_ddcm_moves_the_edits_image_by_the_difference_of_the_images_that_both_point_at():
    """E = (1 - t) E - t (v_target - v_source), the displacement's own recursion, written without any state."""
    clean, noises = drawn(3), drawn(4, GRID.num_steps + 1)
    shift = torch.zeros_like(clean)
    for t, noise in zip(GRID.times[:-1], noises):
        source = (1 - t) * clean + t * noise
        shift = (1 - t) * shift - t * (TARGET_FLOW(source + (1 - t) * shift, t) - SOURCE_FLOW(source, t))
    assert (clean + shift - ddcm(clean, noises, TARGET_FLOW)).abs().max() <= 1e-12


def test_ddcm_without_new_noise_takes_eulers_steps_beside_the_straight_path():
    """eta = 0: D += (t1 - t0)(v_target - v_source) from one noise, which is FlowEdit's rule with its noise fixed."""
    clean, noise = drawn(3), drawn(4)
    ahead = torch.zeros_like(clean)
    for t0, t1 in GRID.steps():
        source = (1 - t0) * clean + t0 * noise
        ahead = ahead + (t1 - t0) * (TARGET_FLOW(source + ahead, t0) - SOURCE_FLOW(source, t0))
    assert (clean + ahead - ddcm(clean, [noise] * 10, TARGET_FLOW, eta=0.0)).abs().max() <= 1e-12


@pytest.mark.parametrize("sigma", [full, ancestral_sigma, lambda t0, t1: 0.0])
def test_the_sources_own_prompt_returns_the_source(sigma):
    clean, noises = drawn(3), drawn(4, GRID.num_steps + 1)
    assert (edit_friendly(clean, noises, SOURCE_FLOW, sigma) - clean).abs().max() <= 1e-12
    assert (ddcm(clean, noises, SOURCE_FLOW) - clean).abs().max() <= 1e-12


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_stochastic_step_keeps_the_marginal(share):
    """Of a flow whose image and noise are known: mean + sigma z has mean (1 - t1) image and variance t1^2."""
    t0, t1, image = 0.8, 0.5, 2.0
    generator = torch.Generator().manual_seed(0)
    noise, fresh = (torch.randn(1, 1, 400, 500, generator=generator, dtype=torch.float64) for _ in range(2))
    z = mean((1 - t0) * image + t0 * noise, noise - image, t0, t1, share * t1) + share * t1 * fresh
    assert abs(float(z.mean()) - (1 - t1) * image) <= 5 * t1 / math.sqrt(200_000)
    assert abs(float(z.var()) - t1**2) <= 5 * t1**2 * math.sqrt(2 / 200_000)


def test_ancestral_sigma_is_that_of_the_posterior():
    """Against Bayes' rule: the chain x_{t0} = r x_{t1} + c noise, of which x_{t1} given both ends has this variance."""
    for t0, t1 in [(0.9, 0.6), (0.5, 0.1), (1.0, 0.7)]:
        r = (1 - t0) / (1 - t1)
        c2 = t0**2 - r**2 * t1**2
        assert math.isclose(ancestral_sigma(t0, t1) ** 2, 1 / (1 / t1**2 + r**2 / c2), rel_tol=1e-12)
    assert ancestral_sigma(0.2, 0.0) == 0.0 and ancestral_sigma(1.0, 0.7) == 0.7


@pytest.mark.parametrize("sigma", ["ancestral", "full"])
@on_two_families
def test_edit_friendly_with_its_own_noises_reconstructs(family, sigma):
    editor, source = made("edit-friendly", family, num_steps=6, skip=0, sigma=sigma, target_guidance_scale=1.0)
    assert float((editor.edit(source, SOURCE).latents - source.latents).abs().max()) <= 1e-6
    assert float((editor.edit(source, SOURCE, target_guidance_scale=4.0).latents - source.latents).abs().max()) > 1e-2


@on_two_families
def test_ddcm_with_the_sources_prompt_and_scale_returns_the_source(family):
    editor, source = made("ddcm", family, num_steps=6, target_guidance_scale=1.0)
    assert float((editor.edit(source, SOURCE).latents - source.latents).abs().max()) <= 1e-5


def test_edit_friendly_remembers_the_source_and_other_seeds_are_other_edits():
    editor, source = made("edit-friendly", "FLUX.1", num_steps=6, skip=1)
    first, second = editor.edit(source, "a blue dog"), editor.edit(source, "a red cat")
    assert [r.recipe["nfe"]["edit"] for r in (first, second)] == [10, 5]
    other = dataclasses.replace(editor, seed=3).edit(source, "a blue dog")
    assert float((other.latents - first.latents).abs().max()) > 1e-2


@pytest.mark.parametrize("name, settings", [("ddcm", {"num_steps": 6}), ("edit-friendly", {"num_steps": 6, "skip": 1})])
@on_two_families
def test_end_to_end(family, name, settings):
    check_end_to_end(name, family, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("ddcm", {"eta": 1.1}, InputError),
        ("edit-friendly", {"skip": 50}, InputError),
    ],
)
def test_settings_out_of_range(model, name, settings, error):
    with pytest.raises(error):
        EDITORS[name](model, **settings)
