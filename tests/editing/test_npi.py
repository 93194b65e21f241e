"""Negative-prompt inversion: the scale has no effect on the source; only where there is a negative prompt."""

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made

from stableflow.editing import EDITORS
from stableflow.errors import InputError


@pytest.mark.parametrize("family", ["SD3", "SD3.5-medium"])
def test_the_source_is_retraced_at_any_scale(family):
    editor, source = made("npi", family, num_steps=6)
    for scale in (1.0, 7.5):
        gap = float((editor.edit(source, SOURCE, guidance_scale=scale).latents - source.latents).abs().max())
        assert gap <= 1e-5, (scale, gap)


def test_it_is_guidance_from_the_sources_prompt_written_out():
    editor, source = made("npi", "SD3", num_steps=4, guidance_scale=5.0)
    model, states = editor.model, []
    editor.edit(source, EDITS[0], callback=lambda record: states.append(record))
    first = states[0]
    edit = model.encode_prompt(EDITS[:1])
    run = next(iter(source.kept.values()))
    at = first.previous + run.offsets[first.t0]
    own, other = (model.velocity(at, first.t0, c, guidance_scale=1.0) for c in (source.conditioning, edit))
    expected = first.previous + (first.t1 - first.t0) * (own + 5.0 * (other - own))
    assert torch.allclose(first.latents, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["SD3", "SD3.5-medium"])
def test_end_to_end(family):
    check_end_to_end("npi", family, num_steps=6)


def test_a_family_without_a_negative_prompt_is_refused_with_the_reason():
    editor, source = made("npi", "FLUX.1", num_steps=4)
    with pytest.raises(InputError, match="no classifier-free guidance"):
        editor.edit(source, EDITS)
    with pytest.raises(InputError, match="leave the negative prompt out"):
        EDITORS["npi"](editor.model, negative="blurred")
