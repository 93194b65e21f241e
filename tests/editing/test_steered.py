"""SteerFlow's step against its formula on flows whose velocities are known, and its claims on a real model."""

import pytest
import torch
from quick import make

from stableflow.editing.run import Run
from stableflow.region import Region

PICTURE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))


def source_of(editor, real):
    return (
        editor.invert(PICTURE, "a red dog", num_steps=3) if real else editor.generate("a red dog", seed=1, num_steps=3)
    )


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("layers", [(), (0, 3)])
def test_the_sources_own_words_retrace_its_path(model, real, layers):
    editor = make("steered", model, layers=layers)
    source = source_of(editor, real)
    guidance = source.fingerprint.guidance_scale
    again = editor.edit(source, "a red dog", guidance_scale=guidance)
    assert (again.latents - source.latents).abs().max() < 1e-5
    assert again.recipe["nfe"]["edit"] == 3 and again.recipe["nfe"]["rows"] == 1


def test_a_step_is_the_formula(model):
    editor = make("steered", model, masked=False, alpha=2.0)
    source = source_of(editor, False)
    with torch.no_grad():
        run = Run(editor, source, "a blue dog")
        t0, t1 = run.grid.times[:2]
        z = source.path.at(t0)
        edit = run.of_edits(editor.guidance(run))(z, t0)
        v = (source.path.at(t1) - source.path.at(t0)) / (t1 - t0)
        cos = ((edit * v).sum(1) / edit.norm(dim=1) / v.norm(dim=1)).mean()
        expected = z + (t1 - t0) * (v + (1 - t1**2) * cos * (edit - v))
        assert (editor.step(run, z, t0, t1) - expected).abs().max() < 1e-5


def test_less_strength_and_smaller_alpha_stay_nearer_and_the_outside_is_the_sources(model):
    editor = make("steered", model)
    source = source_of(editor, True)
    far = [
        (editor.edit(source, "a blue dog", **how).latents - source.latents).norm()
        for how in ({"strength": 0.3}, {}, {"alpha": 1.0})
    ]
    assert far[0] < far[1] and far[2] < far[1]
    size = tuple(source.images.shape[-2:])
    held = editor.edit(source, "a blue dog", region=Region.box(0, 0, 8, 16, size))
    assert torch.equal(held.images[..., 11:], source.given[..., 11:])
