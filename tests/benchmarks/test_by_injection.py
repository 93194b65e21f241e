"""Layers chosen by injecting them: the right one wins, a race drops the others, a stopped job goes on."""

import json

import pytest
import torch

import stableflow as sf
from stableflow.benchmarks.by_injection import ByInjection, Pair, edits_by_row
from stableflow.benchmarks.injection_judges import by_model, scene_pairs
from stableflow.cli.vital_injection import read_pairs
from stableflow.editing.dial import dial_weight
from stableflow.editing.run import Run
from stableflow.errors import InputError

PAIRS = [Pair(f"{i:04d}", "a red dog", "a blue dog", i) for i in range(8)]


def test_the_best_layers_are_chosen_and_a_race_measures_the_others_less(model, tmp_path):
    total, calls = len(model.layers), []
    values = {(layer,): 0.1 for layer in range(total)} | {(2,): 0.6, (3,): 0.55, (2, 3): 0.9}

    def drawn(self, pair, sets):
        calls.append((pair.id, len(sets)))
        noise = 0.01 * (int(pair.id) % 3)
        dial = [{"edited": e, "kept": k} for e, k in zip([1.0, 0.9, 0.7, 0.4, 0.1], [0.0, 0.2, 0.4, 0.7, 1.0])]
        return [*dial, *({"edited": 0.9, "kept": values.get(layers, 0.2) + noise} for layers in sets)]

    kind = type("Planted", (ByInjection,), {"_draw": drawn})
    found = kind(model, PAIRS, by_model, "planted", folder=tmp_path).run()
    assert found["layers"] == [2, 3]
    assert found["exchange"] == pytest.approx(1.08, abs=0.02)
    measured = {tuple(each["layers"]): each["edits"] for each in found["sets"]}
    assert measured[(2,)] == 8 and measured[(0,)] < 8, "clear losers are dropped"
    before = len(calls)
    assert kind(model, PAIRS, by_model, "planted", folder=tmp_path).run() == found
    assert len(calls) == before, "nothing is drawn twice"
    with pytest.raises(InputError, match="another job"):
        kind(model, PAIRS[:7], by_model, "planted", folder=tmp_path)


def test_a_row_is_the_edit_with_its_own_layers(model):
    editor = sf.StableFlow(model, layers=range(len(model.layers)), kv_memory="device")
    source = editor.generate("a red dog", seed=1, num_steps=3)
    amounts = torch.zeros(3, len(model.layers))
    amounts[1, [0, 3]], amounts[2] = 1.0, dial_weight(0.5)
    with torch.no_grad():
        rows = edits_by_row(editor, Run(editor, source, ["a blue dog"] * 3), source, amounts)
    for row, settings in enumerate([{"layers": []}, {"layers": [0, 3]}, {"strength": 0.5}]):
        alone = editor.edit(source, "a blue dog", **settings).latents[0]
        assert (rows[row] - alone).abs().max() < 1e-5


def test_the_model_judges_the_free_edit_as_made_and_the_frozen_one_as_kept(model):
    editor = sf.StableFlow(model, layers=range(len(model.layers)), kv_memory="device")
    source = editor.generate("a red dog", seed=1, num_steps=3)
    run = Run(editor, source, ["a blue dog"] * 2)
    free = editor.edit(source, "a blue dog", layers=[]).latents
    with torch.no_grad():
        figures = by_model(
            PAIRS[0], run, source.images, torch.cat([free, source.latents]), source.images.expand(2, -1, -1, -1)
        )
    assert figures["edited"] == pytest.approx([1, 0], abs=1e-5) and figures["kept"] == pytest.approx([0, 1], abs=1e-5)


def test_pairs_are_read_and_scenes_are_nobody_elses(tmp_path):
    assert len(read_pairs(None, 24, 0)) == 24
    (tmp_path / "edits.txt").write_text("a dog -> a cat\n# note\na red car -> a blue car\n")
    assert [(pair.prompt, pair.edited, pair.seed) for pair in read_pairs(str(tmp_path / "edits.txt"), 9, 5)] == [
        ("a dog", "a cat", 5), ("a red car", "a blue car", 6)]  # fmt: skip
    (tmp_path / "edits.txt").write_text("a dog\n")
    with pytest.raises(InputError, match="->"):
        read_pairs(str(tmp_path / "edits.txt"), 9, 5)
    pairs, _ = scene_pairs(6)
    assert min(int(pair.id) for pair in pairs) >= 200 and len({json.dumps(pair.prompt) for pair in pairs}) == 6


def test_too_few_edits_are_refused(model):
    with pytest.raises(InputError, match="at least 6"):
        ByInjection(model, PAIRS[:3], by_model, "model")
