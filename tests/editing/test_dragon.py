"""DragonDiffusion's energies by region and DiffEditor's regional noise."""

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, on_two_families

from stableflow.editing.region_energy import alike, region_energy, shifted
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.region import Region

GRID = (4, 6)


def drawn(rows, seed):
    return torch.randn(rows, 24, 5, generator=torch.Generator().manual_seed(seed))


def gap(first, second):
    return float((first - second).abs().max())


def test_features_go_where_they_are_sent():
    known = drawn(1, 0)
    place = known.unflatten(1, GRID)
    assert gap(shifted(known, GRID, (0.0, 0.0)), known) <= 1e-5
    moved = shifted(known, GRID, (2.0, -1.0)).unflatten(1, GRID)
    assert gap(moved[:, :-1, 2:], place[:, 1:, :-2]) <= 1e-5
    half = shifted(known, GRID, (0.5, 0.0)).unflatten(1, GRID)
    assert gap(half[:, :, 1:], (place[:, :, 1:] + place[:, :, :-1]) / 2) <= 1e-5
    place = torch.zeros(24)
    place[3] = 1.0
    assert gap(alike(known, known, place), torch.ones(1)) <= 1e-6
    assert gap(alike(known, -known, place), torch.zeros(1)) <= 1e-6


def test_the_energy_is_least_where_the_thing_has_gone_and_its_place_is_background():
    editor, source = made("dragon", "FLUX.1", layers=[0])
    run = Run(editor, source, EDITS[0])
    energy = region_energy(run, Region.box(0, 0, 4, 8, size=(16, 16)), (8, 4))  # 2 x 1 tokens of 4 x 4
    known = torch.randn(1, 16, 5, generator=torch.Generator().manual_seed(0))
    ground = torch.ones(4, 4)
    ground[:2, 0] = ground[1:3, 2] = 0
    gone = known.clone().unflatten(1, (4, 4))
    gone[:, 1:3, 2] = known.unflatten(1, (4, 4))[:, :2, 0]
    gone[:, :2, 0] = known[:, ground.flatten() == 1].mean(1, keepdim=True)
    gone, apart = gone.flatten(1, 2), known.clone()
    apart[:, [6, 10]] = -known[:, [0, 4]]
    left, arrived, away = (float(energy([keys], [known])) for keys in (known, gone, apart))
    assert arrived < left < away
    assert abs(float(energy([known.expand(3, -1, -1)], [known])) - 3 * left) <= 1e-5, "rows by themselves"


@on_two_families
def test_noise_is_new_inside_the_region_alone(family):
    editor, source = made("dragon", family, num_steps=6, share=0.0, eta=1.0, layers=[0])
    size = source.images.shape[-1]
    box = Region.box(0, 0, size // 2, size, size=(size, size))
    seen = {}
    for seed in (1, 2):
        steps = seen.setdefault(seed, [])
        editor.edit(source, EDITS[0], seed=seed, region=box, callback=steps.append)
    half = source.latents.shape[-1] // 2
    apart = [gap(*(steps[i].latents[..., :half] for steps in seen.values())) for i in range(6)]
    assert apart[1] == 0.0 < apart[2], "the third of six steps is the first within the share that is stochastic"
    assert max(gap(*(steps[i].latents[..., half:] for steps in seen.values())) for i in range(6)) == 0.0
    assert torch.equal(*(editor.edit(source, SOURCE, eta=0.0, seed=seed).latents for seed in (1, 2)))


@on_two_families
def test_the_gradient_acts_within_its_bounds(family):
    within = {"low": 0.0, "high": 0.25}
    editor, source = made("dragon", family, num_steps=6, eta=0.0, layers=[0, 1], by=(4, 0), share=0.2, **within)
    size = source.images.shape[-1]
    box, seen = Region.box(0, 0, size // 2, size, size=(size, size)), []
    editor.edit(source, EDITS[0], region=box, callback=seen.append)
    step, told = seen[0], editor.model.encode_prompt(EDITS[:1])
    v = editor.model.velocity(step.previous, step.t0, told, guidance_scale=editor.model.default_guidance_scale)
    led = (step.latents - step.previous) / (step.t1 - step.t0) - v
    width = led.shape[-1] * 3 // 4  # the thing and where it goes, in whole tokens; beyond, the source is put back
    assert 1e-4 < float(led[..., :width].norm() / v.norm()) <= 0.25 + 1e-4
    with pytest.raises(InputError, match="dragon moves a region"):
        editor.edit(source, EDITS[0])


@on_two_families
def test_end_to_end(family):
    check_end_to_end("dragon", family, num_steps=6, layers=[0, 1])
