"""Direct inversion and KV-Edit: what is held of a source is the source's own."""

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, model_of, on_two_families

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.region import Region

LAYERS = [0, 1]


@on_two_families
def test_direct_inversion_pins_the_source_to_its_path_and_nothing_else(family):
    editor, source = made("direct-inversion", family, layers=LAYERS)
    seen = []
    editor.edit(source, EDITS, callback=seen.append)
    assert len(seen) == 4 and all(record.latents.shape[0] == 3 for record in seen)
    for record in seen:
        assert torch.equal(record.previous[:1], source.path.at(record.t0))
        assert torch.equal(record.latents[:1], source.path.at(record.t1))
    assert torch.equal(source.path.at(0.0), source.latents * source.fingerprint.nudge_scale)
    left = editor.edit(source, SOURCE, guidance_scale=source.fingerprint.guidance_scale)
    assert float((left.latents - source.latents).abs().max()) > 1e-4, "edits are not corrected: Euler's own error stays"


@on_two_families
def test_direct_inversion_of_a_drawn_source_retraces_it(family):
    editor = EDITORS["direct-inversion"](model_of(family), layers=LAYERS)
    source = editor.generate(SOURCE, seed=1, num_steps=6)
    gap = float((editor.edit(source, SOURCE).latents - source.latents).abs().max())
    assert gap <= 1e-5 * float(source.latents.abs().max()), "rounding in another batch, at the latents' own scale"


@on_two_families
def test_kv_edit_with_the_sources_prompt_draws_the_source_again(family):
    editor, source = made("kv-edit", family)
    size = source.images.shape[-1]
    region = Region.box(0, 0, size // 2, size, size=(size, size))
    same = editor.edit(source, SOURCE, region=region, guidance_scale=source.fingerprint.guidance_scale)
    assert float((same.latents - source.latents).abs().max()) <= 1e-5
    new = editor.edit(source, SOURCE, region=region, fresh=1.0, seed=2)
    assert float((new.latents - source.latents).abs().max()) > 1e-2


def test_kv_edit_starts_from_noise_as_strong_as_before():
    editor, source = made("kv-edit", "FLUX.1", fresh=0.6, seed=2)
    size = source.images.shape[-1]
    region = Region.box(0, 0, size // 2, size, size=(size, size))
    seen = []
    editor.edit(source, EDITS, region=region, callback=seen.append)
    start, noise = seen[0].previous[-2:], source.noise
    half = noise.shape[-1] // 2
    assert torch.equal(start[..., half:], noise[..., half:].expand_as(start[..., half:]))
    fresh = torch.randn(noise.shape, generator=torch.Generator().manual_seed(2))
    mixed = (0.8 * noise + 0.6 * fresh).expand_as(start)
    assert torch.allclose(start[..., :half], mixed[..., :half], atol=1e-6)


def test_kv_edit_looks_for_a_region_where_none_is_given():
    editor, source = made("kv-edit", "FLUX.1")
    result = editor.edit(source, EDITS)
    assert result.region is not None and result.recipe["region"].startswith("amount:")


@pytest.mark.parametrize(("name", "settings"), [("direct-inversion", {"layers": LAYERS}), ("kv-edit", {})])
@on_two_families
def test_end_to_end(family, name, settings):
    check_end_to_end(name, family, ordered=False, **settings)


@pytest.mark.parametrize("name", ["direct-inversion", "kv-edit"])
def test_strength_on_the_bundled_model(name):
    editor = EDITORS[name](sf.load("tiny"))
    source = editor.generate("a red dog standing on the grass at noon", seed=3, num_steps=6)
    wish, box = "a blue cat standing in the snow at night", Region.box(0, 0, 40, 64, size=(64, 64))
    results = [editor.edit(source, wish, strength=s, region=box).latents for s in (0.1, 0.5, 1.0)]
    moved = [float((latents - source.latents).square().mean()) for latents in results]
    assert 0 < moved[0] < moved[1] < moved[2], moved
