"""What holds around every editor's steps: runs that end early, numbers that break, and what is counted."""

import pytest
import torch
from quick import ALL, EDITS, PROMPT, drawn, make, same, smooth, states, taken

from stableflow.errors import NumericsError

PICTURE = torch.tensor(smooth(18, 22)).permute(2, 0, 1).float()
REGION = "box:0,0,8,12"


class Stop(Exception):
    pass


def stopping(record):
    if record.index == 0:
        raise Stop


def one_pass(model):
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    return model.velocity(latents, 0.5, model.encode_prompt([PROMPT]), guidance_scale=2.0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("where", ["between", "within"])
def test_a_run_that_is_stopped_leaves_the_model_and_the_source_as_they_were(model, monkeypatch, name, where):
    """Stopped by a callback, or inside a pass of the model with everything attached."""
    editor, before, plain = make(name, model), states(model), one_pass(model)
    source = taken(editor, PICTURE)
    expected = editor.edit(source, EDITS, region=REGION)
    fresh = taken(editor, PICTURE)
    if where == "between":
        with pytest.raises(Stop):
            editor.edit(fresh, EDITS, region=REGION, callback=stopping)
        with pytest.raises(Stop):
            editor.generate(PROMPT, seed=1, num_steps=2, callback=stopping)
    else:
        layer = model.pipeline.transformer.single_transformer_blocks[-1]
        calls, forward = [], layer.forward

        def failing(*args, **settings):
            calls.append(1)
            if len(calls) == 2:
                raise Stop
            return forward(*args, **settings)

        monkeypatch.setattr(layer, "forward", failing)
        with pytest.raises(Stop):
            editor.edit(fresh, EDITS, region=REGION)
        monkeypatch.undo()
    assert same(before, states(model)) and torch.equal(one_pass(model), plain)
    assert torch.equal(editor.edit(fresh, EDITS, region=REGION).latents, expected.latents)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("region", [None, REGION])
def test_numbers_that_break_are_refused_where_they_break(model, monkeypatch, name, region):
    editor = make(name, model)
    source, velocity = drawn(editor), model.velocity

    def broken(latents, t, conditioning, **settings):
        return velocity(latents, t, conditioning, **settings) * (float("nan") if t < 0.8 else 1.0)

    monkeypatch.setattr(model, "velocity", broken)
    with pytest.raises(NumericsError, match=r"Step \d of \d .* produced NaN or infinite"):
        editor.edit(source, EDITS, region=region)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("real", [True, False])
def test_evaluations_are_counted_as_the_model_sees_them(model, monkeypatch, name, real):
    editor, seen, velocity = make(name, model), [], model.velocity_with_grad  # which `velocity` asks too

    def counted(latents, t, conditioning, **settings):
        seen.append(len(latents))
        return velocity(latents, t, conditioning, **settings)

    monkeypatch.setattr(model, "velocity_with_grad", counted)
    for settings in (
        {},
        {"region": "change"},
        {"region": REGION},
        {"strength": 0.5},
        {"region": REGION, "strength": 0.5},
    ):
        seen.clear()
        source = taken(editor, PICTURE) if real else drawn(editor)
        assert source.nfe == len(seen)
        nfe = editor.edit(source, EDITS, **settings).recipe["nfe"]
        assert nfe["edit"] + nfe["source"] == len(seen), settings
        assert nfe["rows"] == max(seen[source.nfe :])
