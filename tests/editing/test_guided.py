"""Guide-and-Rescale, Langevin's polish, DDCM's averages, and stacks of strokes."""

import math
from dataclasses import replace

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, model_of, on_two_families

from stableflow.editing import EDITORS
from stableflow.editing.energies import Keys, rescaled
from stableflow.editing.run import Run
from stableflow.editing.stack import Stack, Stroke
from stableflow.errors import InputError
from stableflow.flow.stochastic import noise_of
from stableflow.order import from_recipe


def gap(first, second):
    return float((first - second).abs().max())


def test_a_gradient_is_as_long_as_its_bounds_let_it():
    generator = torch.Generator().manual_seed(0)
    push, gradient = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    size = lambda x: x.flatten(1).norm(dim=1)  # noqa: E731
    for scale, ratio in ((1e-6, 0.3), (1e6, 2.0)):
        led = rescaled(scale * gradient, push, 0.3, 2.0)
        assert torch.allclose(size(led), ratio * size(push), rtol=1e-4)
        assert torch.allclose(torch.cosine_similarity(led.flatten(1), gradient.flatten(1)), torch.ones(2))
    inside = rescaled(gradient, push, 0.01, 100.0)
    assert torch.allclose(inside, gradient, rtol=1e-4), "within bounds it is left alone"


@on_two_families
def test_the_gradient_is_that_of_the_difference_of_keys(family):
    """Against a finite difference along it, and with the own velocity of the source's prompt beside it."""
    editor, source = made("guide-rescale", family, num_steps=4, layers=[0, 1])
    run = Run(editor, source, EDITS[:1])
    t, kept = run.grid.times[1], Keys([0, 1], [])

    def energy(z):
        with editor.model.attach(kept):
            run.of_source(1.0)(torch.cat([editor.held(run, t), z])[:1], t)
            wanted = kept.taken()
            run.of_source(1.0)(z, t)
        return sum(float((keys - of_source).square().mean()) for keys, of_source in zip(kept.taken(), wanted)) / 2

    with torch.no_grad():
        z = run.rows(editor.held(run, t)) + 0.3 * run.noise()
        own, gradient = editor._led(run, z, t)
        assert gap(own, run.of_source(1.0)(z, t)) <= 1e-5
        direction, h = gradient / gradient.norm(), 1e-2
        slope = (energy(z + h * direction) - energy(z - h * direction)) / (2 * h)
    assert math.isclose(slope, float(gradient.norm()), rel_tol=0.05), (slope, float(gradient.norm()))


@on_two_families
def test_langevins_step_written_out(family):
    editor, source = made("polish", family, num_steps=4, steps=1, size=0.1, depth=0.6, seed=2)
    seen = []
    editor.edit(source, EDITS[0], callback=seen.append)
    path, t = next(iter(source.kept.values())), seen[0].t0
    z, e = path.at(t), 0.1 * t**2
    v = editor.model.velocity(z, t, editor.model.encode_prompt(EDITS[:1]), guidance_scale=1.0)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    expected = z - e * (z + (1 - t) * v) / t + math.sqrt(2 * e) * noise
    assert gap(seen[0].previous, expected) <= 1e-5


def test_langevins_steps_leave_a_gaussian_as_it_is():
    """Of images ~ N(0, 1): z_t ~ N(0, s^2) with s^2 = (1 - t)^2 + t^2, and v = E[noise - image | z] is known."""
    t = 0.4
    variance = (1 - t) ** 2 + t**2
    generator = torch.Generator().manual_seed(0)
    z, e = 2.0 * torch.randn(1, 1, 100, 200, generator=generator, dtype=torch.float64), 0.02
    for _ in range(120):
        score = -noise_of(z, z * (t - (1 - t)) / variance, t) / t  # which is -z / s^2
        z = z + e * score + math.sqrt(2 * e) * torch.randn(z.shape, generator=generator, dtype=z.dtype)
    assert abs(float(z.var()) - variance) < 0.06 * variance


@on_two_families
def test_ddcm_averages_and_ends_with_plain_sampling(family):
    editor, source = made("ddcm", family, num_steps=5, target_guidance_scale=1.0)
    assert gap(editor.edit(source, SOURCE, n_avg=3).latents, source.latents) <= 1e-5
    seen = []
    editor.edit(source, EDITS[0], n_min=2, callback=seen.append)
    last, told = seen[-1], editor.model.encode_prompt(EDITS[:1])
    v = editor.model.velocity(last.previous, last.t0, told, guidance_scale=1.0)
    assert gap(last.latents, last.previous + (last.t1 - last.t0) * v) <= 1e-5
    counts = [editor.edit(source, EDITS[0], n_avg=n, n_min=1).recipe["nfe"]["edit"] for n in (1, 3)]
    assert counts == [5, 4 * 3 + 1]


@pytest.mark.parametrize("name", ["guide-rescale", "polish"])
@on_two_families
def test_end_to_end(family, name):
    if name == "polish":  # Langevin's steps at t = 1 end at unit noise, wherever they begin
        check_end_to_end(name, family, num_steps=6, steps=2, ordered=False)
    else:
        check_end_to_end(name, family, num_steps=6, layers=[0, 1])


@pytest.fixture
def stack():
    brushes = EDITORS["brushes"](model_of("FLUX.1"))
    return Stack(brushes, brushes.generate(SOURCE, seed=1, num_steps=6, height=16, width=16))


LEFT = Stroke("a blue dog", "box:0,0,8,16", seed=1, strength=0.9, amount=0.8)
RIGHT = Stroke("a red cat", "box:8,0,8,16", seed=2, strength=0.6, amount=0.8)


def test_only_what_is_above_a_change_is_drawn_again(stack):
    velocity, calls = stack.editor.model.velocity, []
    stack.editor.model.velocity = lambda *a, **k: (calls.append(1), velocity(*a, **k))[1]
    try:
        both = stack.draw([LEFT, RIGHT])
        first = len(calls)
        assert stack.draw([LEFT, RIGHT]) is both and len(calls) == first
        steps = []
        assert [stack.kept(some) for some in ([LEFT, RIGHT], [LEFT, replace(RIGHT, seed=3)], [RIGHT])] == [2, 1, 0]
        other = stack.draw([LEFT, replace(RIGHT, seed=3)], callback=steps.append)
        assert len(steps) == other.recipe["strokes"][1]["nfe"]["edit"] < both.recipe["strokes"][0]["nfe"]["edit"]
        assert 0 < len(calls) - first < first, "the lower stroke is kept"
        assert gap(other.images, both.images) > 1e-3
        hidden = stack.draw([LEFT, replace(RIGHT, hidden=True)])
    finally:
        del stack.editor.model.velocity
    assert gap(hidden.images[..., 12:], stack.source.images[..., 12:]) == 0.0, "but for the seam"
    assert gap(hidden.images[..., :4], both.images[..., :4]) == 0.0, "strokes beside one another do not meet"
    swapped = stack.draw([RIGHT, LEFT])
    assert gap(swapped.images, both.images) > 0


def test_a_stack_tells_of_all_its_strokes_and_keeps_so_many(stack):
    few = replace(stack, most=2, _drawn={})
    both = few.draw([LEFT, RIGHT])
    assert [told["region"] for told in both.recipe["strokes"]] == [LEFT.region, RIGHT.region]
    assert both.source is few.source and both.region is not None and both.region.share() > 0.9, "where any shows"
    few.draw([RIGHT])
    assert few.kept([RIGHT]) == 1 and few.kept([LEFT]) == 0, "unused for longest"
    assert gap(few.draw([LEFT, RIGHT]).images, both.images) == 0.0
    with pytest.raises(InputError, match="drawn in layers"):
        from_recipe(both.recipe)


def test_strokes_that_cannot_be(stack):
    with pytest.raises(InputError, match="Every stroke is hidden"):
        stack.draw([replace(LEFT, hidden=True)])
    encoded = EDITORS["sdedit"](stack.editor.model).invert(torch.rand(3, 16, 16), SOURCE)
    with pytest.raises(InputError, match="has no path"):
        Stack(stack.editor, encoded)
    with pytest.raises(InputError, match="strength must"):
        replace(LEFT, strength=0.0)


@on_two_families
def test_words_come_by_a_schedule(family):
    """0 is the source, 1 re-prompting itself, and a late window less than an early one."""
    editor = EDITORS["reprompt"](model_of(family))
    source = editor.generate(SOURCE, seed=1, num_steps=6, height=16, width=16)
    moved = {words: editor.edit(source, EDITS[0], words=words).latents for words in (0.0, 1.0, "1:1,0.5:1,0.5:0", 0.5)}
    assert gap(moved[0.0], source.latents) <= 1e-4 < gap(moved[0.5], source.latents)
    assert torch.equal(moved[1.0], editor.edit(source, EDITS[0]).latents)
    late = editor.edit(source, EDITS[0], words="1:0,0.2:0,0.2:1").latents
    assert gap(late, source.latents) < gap(moved["1:1,0.5:1,0.5:0"], source.latents)
    with pytest.raises(InputError, match="words must lie"):
        EDITORS["reprompt"](editor.model, words=1.5)
