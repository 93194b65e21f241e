import pytest
from tiny_flux import NUM_LAYERS

import stableflow as sf
from stableflow.errors import InputError
from stableflow.vital import presets
from stableflow.vital.presets import Preset, all_presets, find_preset, resolve_layers


def test_every_shipped_preset_is_complete():
    for preset in all_presets():
        assert preset.source and preset.names
        assert all(0 <= layer < preset.num_layers for layer in preset.layers)


def test_the_published_set_of_flux_dev():
    flux = next(preset for preset in all_presets() if "black-forest-labs/FLUX.1-dev" in preset.names)
    assert flux.layers == (0, 1, 17, 18, 25, 28, 53, 54, 56) and flux.num_layers == 57


def test_presets_are_found_by_checkpoint_and_never_by_family(model, monkeypatch):
    with pytest.raises(InputError, match="not for its family"):
        find_preset(model)
    other = Preset((2, 4), NUM_LAYERS, ("some/copy",), "another digest", "test")
    monkeypatch.setattr(presets, "all_presets", lambda: [other])
    with pytest.raises(InputError, match="copy of one of these, pass its layers: some/copy: 2,4"):
        find_preset(model)
    own = Preset((1, 3), NUM_LAYERS, ("somebody/else",), model.checkpoint_hash(), "test")
    monkeypatch.setattr(presets, "all_presets", lambda: [own])
    assert resolve_layers(model, "vital") == (1, 3)
    assert sf.StableFlow(model).layers == (1, 3)


def test_changed_weights_under_a_known_name_are_warned_of(model, monkeypatch):
    other = Preset((1, 3), NUM_LAYERS, ("random-flux",), "another digest", "test")
    monkeypatch.setattr(presets, "all_presets", lambda: [other])
    with pytest.warns(UserWarning, match="were measured without: weights other than those measured"):
        assert find_preset(model).layers == (1, 3)


@pytest.mark.parametrize(("layers", "message"), [([0, 9], "out of range"), ([1, 1], "not repeat"), ("some", "'vital'")])
def test_bad_layers(model, layers, message):
    with pytest.raises(InputError, match=message):
        resolve_layers(model, layers)
