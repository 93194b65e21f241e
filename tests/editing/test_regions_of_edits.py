"""Several edits in one picture, brushes, and things moved: what happens inside and outside of regions."""

import math

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, on_two_families

from stableflow.editing import EDITORS
from stableflow.editing.collage import filled
from stableflow.editing.wishes import Edit
from stableflow.errors import InputError
from stableflow.flow.stochastic import noise_of, turned
from stableflow.region import Region


def halves(size):
    left = Region.box(0, 0, size // 2, size, size=(size, size))
    return left, ~left


def gap(first, second):
    return float((first - second).abs().max())


@on_two_families
def test_together_edits_make_one_picture_with_the_source_where_none_is(family):
    editor, source = made("lomoe", family)
    size = source.images.shape[-1]
    first = Region.box(0, 0, size // 2, size // 2, size=(size, size))
    second = Region.box(size // 2, size // 2, size // 2, size // 2, size=(size, size))
    one = editor.edit(source, [Edit(EDITS[0], first), Edit(EDITS[1], second)], together=True)
    assert one.images.shape[0] == one.latents.shape[0] == 1 and one.recipe["together"] and len(one.recipe["edits"]) == 2
    half = one.latents.shape[-1] // 2
    changed = (one.latents - source.latents).abs()
    assert float(changed[..., :half, half:].max()) <= 1e-6 and float(changed[..., half:, :half].max()) <= 1e-6
    assert float(changed[..., :half, :half].max()) > 1e-2 and float(changed[..., half:, half:].max()) > 1e-2
    corner = (..., slice(size // 2 - 3), slice(size // 2 + 3, None))
    assert torch.equal(one.images[corner], source.given[corner])


@on_two_families
def test_together_with_one_prompt_over_both_halves_is_that_prompts_edit(family):
    """Fusion takes nothing away: two rows that say the same, each over its half, are one row over the whole."""
    editor, source = made("lomoe", family, bootstrap=0.0)
    left, right = halves(source.images.shape[-1])
    fused = editor.edit(source, [Edit(EDITS[0], left), Edit(EDITS[0], right)], together=True)
    whole = editor.edit(source, EDITS[0])
    assert gap(fused.latents, whole.latents) <= 1e-5 * max(1.0, float(whole.latents.abs().max()))


def test_together_later_edits_lie_on_top_and_see_each_other():
    editor, source = made("lomoe", "FLUX.1", bootstrap=0.0)
    size = source.images.shape[-1]
    every, (left, right) = Region.everywhere((size, size)), halves(size)
    covered = editor.edit(source, [Edit(EDITS[0], every), Edit(EDITS[1], every)], together=True)
    assert gap(covered.latents, editor.edit(source, EDITS[1]).latents) <= 1e-5
    fused = editor.edit(source, [Edit(EDITS[0], left), Edit(EDITS[1], right)], together=True)
    apart = editor.edit(source, [Edit(EDITS[0], left), Edit(EDITS[1], right)])
    half = fused.latents.shape[-1] // 2
    assert gap(fused.latents[..., :half], apart.latents[:1, ..., :half]) > 1e-3, "the right half is seen from the left"


@pytest.mark.parametrize("name", ["flowedit", "kv-edit", "edict", "stable-flow"])
def test_every_editor_edits_together(name):
    settings = {"flowedit": {"num_steps": 6, "n_max": 5}, "edict": {"num_steps": 4}, "stable-flow": {"layers": [0]}}
    editor, source = made(name, "FLUX.1", **settings.get(name, {}))
    left, right = halves(source.images.shape[-1])
    wishes = [Edit(EDITS[0], left), Edit(EDITS[1], right)]
    one = editor.edit(source, wishes, together=True)
    assert one.images.shape[0] == 1 and gap(one.latents, source.latents) > 1e-2
    assert torch.equal(one.latents, editor.edit(source, wishes, together=True).latents)
    still = editor.edit(source, wishes, together=True, strength=0)
    assert still.images.shape[0] == 1 and torch.equal(still.images, source.images)


def test_together_needs_regions():
    editor, source = made("lomoe", "FLUX.1")
    with pytest.raises(InputError, match="give each its own"):
        editor.edit(source, EDITS, together=True)


def test_lomoe_shows_each_prompt_plain_colour_around_its_region_at_first(monkeypatch):
    editor, source = made("lomoe", "FLUX.1", bootstrap=0.5, seed=5)
    model, asked = editor.model, []
    velocity = model.velocity
    monkeypatch.setattr(model, "velocity", lambda z, t, *a, **k: asked.append(z) or velocity(z, t, *a, **k))
    size = source.images.shape[-1]
    editor.edit(source, EDITS[0], region=halves(size)[0])
    half = source.latents.shape[-1] // 2
    for step, z in enumerate(asked):
        t, outside = source.grid.times[step], z[..., half:]
        path = source.path.at(t)[..., half:]
        assert (gap(outside, path) <= 1e-6) == (step != 1), "and at t = 1 all is noise yet"
        if step == 1:
            plain = (outside - t * source.noise[..., half:]) / (1 - t)
            noise = torch.randn(source.latents.shape, generator=torch.Generator().manual_seed(5))
            colour = torch.special.ndtr(noise.flatten()[:3]).reshape(1, 3, 1, 1).expand(1, 3, size, size)
            expected = model.encode_image(colour) * source.fingerprint.nudge_scale
            assert gap(plain, expected[..., half:]) <= 1e-4, "noised by the source's own noise"


def test_turned_noise_keeps_the_marginal():
    """Of a known image and noise: x + t (turned - noise) has the state's mean and variance, at any share."""
    generator, t, image = torch.Generator().manual_seed(0), 0.6, 1.5
    noise, fresh = (torch.randn(1, 1, 400, 500, generator=generator, dtype=torch.float64) for _ in range(2))
    x = (1 - t) * image + t * noise
    assert float((noise_of(x, noise - image, t) - noise).abs().max()) <= 1e-12
    for share in (0.0, 0.5, 1.0):
        z = x + t * (turned(noise, fresh, share) - noise)
        assert abs(float(z.mean()) - (1 - t) * image) <= 5 * t / math.sqrt(200_000)
        assert abs(float(z.var()) - t**2) <= 5 * t**2 * math.sqrt(2 / 200_000)
        assert abs(float((z * noise).mean()) - t * math.sqrt(1 - share**2)) <= 0.02
    assert torch.equal(turned(noise, fresh, 0.0), noise) and torch.equal(turned(noise, fresh, 1.0), fresh)


@on_two_families
def test_a_brush_without_new_noise_and_with_the_sources_prompt_is_the_source(family):
    editor, source = made("brushes", family, amount=0.0)
    same = editor.edit(source, SOURCE, guidance_scale=source.fingerprint.guidance_scale)
    assert gap(same.latents, source.latents) <= 1e-5
    first, second = (editor.edit(source, SOURCE, amount=0.7, seed=seed).latents for seed in (1, 2))
    assert gap(first, second) > 1e-2, "another seed is another stroke"


def test_a_brush_draws_only_what_lies_below_it():
    editor, source = made("brushes", "FLUX.1")
    steps = [editor.edit(source, EDITS[0], begin=t).recipe["nfe"]["edit"] for t in source.grid.times[:-1]]
    assert steps == [4, 3, 2, 1]


def test_a_brush_lets_the_outside_move_until_the_last_steps():
    editor, source = made("brushes", "FLUX.1", begin=1.0)
    left, seen, half = halves(source.images.shape[-1])[0], [], source.latents.shape[-1] // 2
    editor.edit(source, EDITS[0], region=left, callback=seen.append)
    moved = [gap(r.latents[..., half:], source.path.at(r.t1)[..., half:]) for r in seen]
    assert moved[0] > 1e-4 and moved[1:] == [0.0, 0.0, 0.0]


def test_filling_takes_what_lies_around():
    pixels = torch.full((1, 3, 13, 9), 0.25)
    hole = torch.zeros(1, 1, 13, 9)
    hole[..., 4:9, 3:7] = 1
    spoiled = torch.where(hole == 1, 1.0, pixels)
    assert torch.allclose(filled(spoiled, hole), pixels, atol=1e-6)
    ramp = torch.linspace(0, 1, 13)[None, None, :, None].expand(1, 3, 13, 9).contiguous()
    close = filled(ramp, hole)
    assert torch.equal(close[hole.expand_as(close) == 0], ramp[hole.expand_as(close) == 0])
    assert gap(close, ramp) < 0.35


@on_two_families
def test_with_the_sources_prompt_a_moved_thing_is_the_collage_and_nothing_else_has_changed(family):
    """Both branches are one then, so that the anchor stays where it is, to rounding in a batch."""
    editor, source = made("pixelman", family, num_steps=4)
    size, given = source.images.shape[-1], source.given
    side = size // 2
    thing, by = Region.box(0, 0, side // 2, side, size=(size, size)), (side, 0)
    result = editor.edit(source, SOURCE, region=thing, by=by)
    collage = filled(given, thing.amount[:, None])
    collage[..., :side, side : side + side // 2] = given[..., :side, : side // 2]
    latents, scale = editor.model.encode_image(collage), float(source.latents.abs().max())
    inside = (thing | thing.moved(*by)).latents((latents.shape[-2], latents.shape[-1])).expand_as(latents) == 1
    assert gap(result.latents[inside], latents[inside]) <= 1e-5 * scale
    assert gap(result.latents[~inside], source.latents[~inside]) == 0.0
    assert gap(latents[inside], source.latents[inside]) > 1e-2
    outside = ((~(thing | thing.moved(*by)).grow(3)).amount[:, None] == 1).expand_as(given)
    assert torch.equal(result.images[outside], given[outside])


def test_pixelman_without_a_move_is_ddcm():
    """The collage is the picture, so both walk one rule from one noise: E = (1 - t) E - t (v_edit - v_source)."""
    editor, source = made("pixelman", "FLUX.1", num_steps=5, guidance_scale=2.0, seed=4)
    ddcm = EDITORS["ddcm"](editor.model, num_steps=5, source_guidance_scale=2.0, target_guidance_scale=2.0, seed=4)
    assert gap(editor.edit(source, EDITS[0]).latents, ddcm.edit(source, EDITS[0]).latents) <= 1e-5


def test_pixelman_refuses_what_it_cannot_move():
    editor, source = made("pixelman", "FLUX.1", num_steps=4)
    left, right = halves(source.images.shape[-1])
    with pytest.raises(InputError, match="give the thing as region"):
        editor.edit(source, SOURCE, by=(4, 0))
    with pytest.raises(InputError, match="one thing a call"):
        editor.edit(source, [Edit(SOURCE, left), Edit(SOURCE, right)], by=(4, 0))


@pytest.mark.parametrize(("name", "settings"), [("lomoe", {}), ("brushes", {}), ("pixelman", {"num_steps": 6})])
@on_two_families
def test_end_to_end(family, name, settings):
    check_end_to_end(name, family, **settings)


def test_settings_out_of_range(model):
    for name, settings in [("brushes", {"begin": 0.0}), ("brushes", {"amount": 1.5}), ("lomoe", {"bootstrap": 2.0})]:
        with pytest.raises(InputError):
            EDITORS[name](model, **settings)
