"""Cyclic One-Way: the way back to noise keeps the marginal, what is held is held in every round."""

import math

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, model_of, on_two_families

from stableflow.editing import EDITORS
from stableflow.errors import InputError
from stableflow.flow.stochastic import renoised
from stableflow.region import Region


def gap(first, second):
    return float((first - second).abs().max())


@pytest.mark.parametrize(("t0", "t1"), [(0.5, 0.7), (0.2, 0.9), (0.4, 0.4), (0.3, 1.0)])
def test_going_back_to_noise_keeps_the_marginal(t0, t1):
    """Of a known image: the state at t1 has mean (1 - t1) image and variance t1^2."""
    generator, image, count = torch.Generator().manual_seed(0), 2.0, 200_000
    noise, fresh = (torch.randn(1, 1, 400, 500, generator=generator, dtype=torch.float64) for _ in range(2))
    z = renoised((1 - t0) * image + t0 * noise, fresh, t0, t1)
    assert abs(float(z.mean()) - (1 - t1) * image) <= 5 * t1 / math.sqrt(count)
    assert abs(float(z.var()) - t1**2) <= 5 * t1**2 * math.sqrt(2 / count)


@on_two_families
def test_without_cycles_it_is_reprompting_from_low(family):
    editor = EDITORS["cyclic"](model_of(family), cycles=0, plain=False, low=0.6)
    source = editor.generate(SOURCE, seed=1, num_steps=5, height=16, width=16)
    everywhere = Region.everywhere((16, 16))
    again = EDITORS["reprompt"](model_of(family), strength=0.6)
    first, second = (made.edit(source, EDITS, region=everywhere).latents for made in (editor, again))
    assert gap(first, second) <= 1e-4


@on_two_families
def test_rounds(family):
    editor, source = made("cyclic", family, cycles=2, low=0.2, seed=4)
    size = source.images.shape[-1]
    box, seen = Region.box(0, 0, size // 2, size, size=(size, size)), []
    settle = type(editor).step

    def watched(self, run, z, t0, t1):
        half = z.shape[-1] // 2
        seen.append((t0, t1, gap(z[..., half:], run.source.path.at(t0)[..., half:].expand_as(z[..., half:]))))
        return settle(self, run, z, t0, t1)

    type(editor).step = watched
    try:
        edited = editor.edit(source, EDITS[0], region=box)
    finally:
        type(editor).step = settle
    times = [t0 for t0, _, _ in seen]
    high, low = (source.grid.since(t).times[0] for t in (editor.high, editor.low))
    assert times.count(high) == 2 and max(times) == high > low and edited.recipe["nfe"]["edit"] == len(seen)
    assert max(off for *_, off in seen) <= 1e-6, "held on its path in every round"
    again = editor.edit(source, SOURCE, region=box, seed=5).latents
    assert gap(again, edited.latents) > 1e-3
    with pytest.raises(InputError, match="low must not be above"):
        editor.having(low=0.9)


@on_two_families
def test_end_to_end(family):
    check_end_to_end("cyclic", family, cycles=2, ordered=False)
