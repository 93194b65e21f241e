"""Presets of speed: what they set, what recipes say, and what a session keeps of them."""

import pytest
import torch
from test_stable_flow import EDITS, LAYERS, SOURCE, picture

import stableflow as sf
from stableflow.editing.presets import PRESETS, SpeedPreset
from stableflow.editing.prompts import PromptCache
from stableflow.errors import InputError, UnknownNameError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_decides_what_is_not_given(model, name):
    preset = PRESETS[name]
    editor = sf.StableFlow(model, layers=LAYERS, preset=name)
    source = editor.invert(picture(), SOURCE)
    assert source.fingerprint.num_steps == preset.num_steps
    assert dict(source.fingerprint.solver) == dict(preset.solver)
    result = editor.edit(source, EDITS[:1])
    assert result.recipe["preset"] == preset.describe() and result.recipe["kv_precision"] == preset.kv_precision
    assert torch.equal(editor.edit(source, EDITS[:1]).latents, result.latents), "a further edit is the first one"
    given = editor.invert(picture(), SOURCE, num_steps=3, solver=sf.FixedPoint(), inversion="paper")
    assert given.fingerprint.num_steps == 3 and given.fingerprint.inversion == "paper"


def test_the_exact_preset_is_the_default_and_unknown_ones_are_refused(model):
    assert sf.StableFlow(model, layers=LAYERS).preset == PRESETS["exact"] == SpeedPreset("exact")
    with pytest.raises(UnknownNameError, match=r"Known: exact, balanced, fast\. Did you mean 'fast'"):
        sf.StableFlow(model, layers=LAYERS, preset="fats")


def test_every_setting_of_a_preset_acts(model, tmp_path):
    """fp8 changes edits a little and a saved session keeps it; reuse changes them; both leave the source alone."""
    plain = sf.StableFlow(model, layers=LAYERS)
    exact = plain.invert(picture(), SOURCE, num_steps=8)
    expected = plain.edit(exact, EDITS).latents
    small = sf.StableFlow(model, layers=LAYERS, preset=SpeedPreset("small", kv_precision="fp8"))
    source = small.invert(picture(), SOURCE, num_steps=8)
    assert torch.equal(source.latents, exact.latents)
    assert source.store.num_bytes < 0.3 * exact.store.num_bytes
    edits = small.edit(source, EDITS)
    assert 0 < (edits.latents - expected).abs().max() < 0.2 * expected.abs().max()
    source.save(tmp_path)
    loaded = sf.Source.load(tmp_path)
    assert loaded.store.precision == "fp8" and torch.equal(small.edit(loaded, EDITS).latents, edits.latents)

    for preset in (SpeedPreset("quick", reuse_every=2), SpeedPreset("steady", reuse_tolerance=2.0)):
        quick = sf.StableFlow(model, layers=LAYERS, preset=preset)
        first = quick.edit(exact, EDITS)
        assert 0 < first.recipe["spared_passes"] < 8
        assert 0 < (first.latents - expected).abs().max() < 0.5 * expected.abs().max()
        assert torch.equal(quick.edit(exact, EDITS).latents, first.latents), "residuals of one edit are not another's"
    assert torch.equal(plain.edit(exact, EDITS).latents, expected)


def test_prompts_are_encoded_once(own_pipeline, monkeypatch):
    model, calls = sf.wrap(own_pipeline, name="x"), []
    encode = model.encode_prompt
    monkeypatch.setattr(model, "encode_prompt", lambda prompts: calls.append(list(prompts)) or encode(prompts))
    cache = PromptCache(model, size=2)
    together = cache.encode(["a red dog", "a cat"])
    assert together.prompts == ("a red dog", "a cat") and calls == [["a red dog"], ["a cat"]]
    for name, tensor in encode(["a red dog", "a cat"]).tensors.items():
        assert (together.tensors[name] - tensor).abs().max() <= 1e-5
    assert cache.encode("a cat").prompts == ("a cat",) and len(calls) == 2
    cache.encode(["a dog", "a car", "a cat"])
    assert calls[2:] == [["a dog"], ["a car"], ["a cat"]], "the ones unused for longest are forgotten"
    for wrong in ([], [" "], ["a dog", ""]):
        with pytest.raises(InputError):
            cache.encode(wrong)
    from peft import LoraConfig

    own_pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    assert len(calls) == 5 and cache.encode("a cat") and len(calls) == 6, "an adapter may bring its own text encoder"
