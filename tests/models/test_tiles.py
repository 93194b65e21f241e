"""Passes made of windows: every cell is the model's own, cuts move with time, and what is exact stays exact."""

import pytest
import torch
from families import FAMILIES

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.errors import InputError, InterventionError
from stableflow.models.tiles import InTiles, cells_of

two_families = pytest.mark.parametrize("family", ["FLUX.1", "SD3"])


@pytest.fixture(scope="module")
def models():
    made = {}
    return lambda name: made.setdefault(name, sf.wrap(FAMILIES[name].make(), name=name))


def picture(height, width):
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


@pytest.mark.parametrize("window", [8, 12, 16])
def test_cells_cover_a_length_once_and_lie_within_whole_windows(window):
    for length in range(4, 70, 2):
        for shift in (0.0, 0.1, 0.37, 0.5, 0.99):
            cells = cells_of(length, window, 2, shift)
            assert [index for cell, _ in cells for index in range(length)[cell]] == list(range(length))
            for cell, seen in cells:
                assert 0 <= seen.start <= cell.start < cell.stop <= seen.stop <= length
                assert seen.stop - seen.start == min(window, length) and seen.start % 2 == 0
    assert len({cells_of(32, 16, 2, s)[0][0].stop for s in (0.0, 0.3, 0.6, 0.9)}) > 2, "seams move"


@two_families
def test_one_window_is_the_model_itself(family, models):
    model, size = models(family), FAMILIES[family].size
    whole, tiled = (EDITORS["flowedit"](m, num_steps=3, n_max=2, seed=1) for m in (model, InTiles(model, size)))
    first, second = (
        editor.edit(editor.invert(picture(size, size), "a red dog", height=size, width=size), "a blue dog")
        for editor in (whole, tiled)
    )
    assert torch.equal(first.latents, second.latents) and torch.equal(first.images, second.images)


@two_families
def test_every_cell_is_its_windows_velocity(family, models):
    model, size = models(family), FAMILIES[family].size
    tiled, told = InTiles(model, size), model.encode_prompt(["a red dog"])
    z = torch.randn(1, *tiled.latent_shape(2 * size, size + size // 2), generator=torch.Generator().manual_seed(0))
    made = {t: tiled.velocity(z, t, told, guidance_scale=1.0) for t in (0.5, 0.7)}
    rows, columns = tiled.cells(z, 0.5)
    assert len(rows) == 3 and len(columns) == 2
    for y, seen_y in rows:
        for x, seen_x in columns:
            window = torch.zeros_like(z)
            window[..., seen_y, seen_x] = model.velocity(z[..., seen_y, seen_x], 0.5, told, guidance_scale=1.0)
            assert torch.equal(made[0.5][..., y, x], window[..., y, x])
    assert tiled.cells(z, 0.7) != (rows, columns) and tiled.cells(z, 0.5) == (rows, columns)


@pytest.mark.parametrize("name", ["reprompt", "ddcm"])
def test_what_is_exact_without_tiles_is_exact_with_them(name, models):
    tiled = InTiles(models("FLUX.1"), 16)
    editor = EDITORS[name](tiled, **({"num_steps": 3} if name == "ddcm" else {}))
    steps = {"num_steps": 3} if name == "reprompt" else {}
    source = editor.invert(picture(32, 24), "a red dog", height=32, width=24, **steps)
    scales = {n: 1.0 for n in editor.setting_names() if n.endswith("guidance_scale")}
    back, other = (editor.edit(source, prompt, **scales).latents for prompt in ("a red dog", "a blue cat"))
    assert float((back - source.latents).abs().max()) <= 1e-5 < float((other - source.latents).abs().max())


def test_what_acts_on_layers_is_refused_for_more_than_one_window(models):
    editor = EDITORS["stable-flow"](InTiles(models("FLUX.1"), 16), layers=[0])
    with pytest.raises(InterventionError, match="see one window of 16 pixels"):
        editor.generate("a red dog", seed=1, num_steps=2, height=32, width=16)
    assert editor.generate("a red dog", seed=1, num_steps=2, height=16, width=16).store is not None
    with pytest.raises(InputError, match="model must come from"):
        InTiles(editor.model)
    with pytest.raises(InputError, match="multiples of"):
        editor.model.check_size(32, 17)
