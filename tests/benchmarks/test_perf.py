"""The published way draws what a session draws, and what is measured is what is said."""

import json
import sys

import pytest
import torch
from test_stable_flow import EDITS, LAYERS, SOURCE, picture

import stableflow as sf
from stableflow.benchmarks.perf import __main__ as program
from stableflow.benchmarks.perf.accelerator import flop_a_row
from stableflow.benchmarks.perf.measure import compared, engine_overhead, growth, interleaved, of_real, store_bytes
from stableflow.benchmarks.perf.random_flux import SHAPES, empty_transformer, random_flux
from stableflow.benchmarks.perf.reference import draw_and_edit, invert_and_edit
from stableflow.benchmarks.perf.table import BEGIN, END, tables, write_between
from stableflow.editing.presets import PRESETS
from stableflow.errors import InputError


@pytest.fixture(scope="module")
def flux():
    return random_flux(SHAPES["tiny"])


def test_the_published_way_draws_what_a_session_draws(model):
    editor = sf.StableFlow(model, layers=LAYERS)
    source = editor.generate(SOURCE, seed=1, num_steps=4)
    images = draw_and_edit(model, LAYERS, SOURCE, EDITS, seed=1, num_steps=4)
    assert (images[:1] - source.images).abs().max() <= 1e-5
    assert (images[1:] - editor.edit(source, EDITS).images).abs().max() <= 1e-5

    source = editor.invert(picture(), SOURCE, num_steps=5, inversion="paper")
    images = invert_and_edit(model, LAYERS, picture(), SOURCE, EDITS, num_steps=5)
    assert (images[:1] - source.images).abs().max() <= 1e-5
    assert (images[1:] - editor.edit(source, EDITS).images).abs().max() <= 1e-5


def test_flux_has_flux_dev_s_shape_and_floors():
    shape, transformer = SHAPES["flux"], empty_transformer(SHAPES["flux"])
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 11_901_408_320
    assert flop_a_row(shape, 1024) == pytest.approx(74.4e12, rel=2e-3)
    assert transformer.inner_dim == shape.width == 3072


def test_ways_take_turns():
    order, now = [], iter(range(100))
    seconds = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, clock=lambda: float(next(now))
    )
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}
    row = compared("x", [4.0, 9.0, 8.0], [2.0, 3.0, 4.0], 1.5)
    assert (row.reference, row.ours, row.ratio, row.low, row.high, row.runs) == (8.0, 3.0, 2.0, 2.0, 3.0, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_keys_and_values_take_what_was_computed(flux, preset):
    found = store_bytes(sf.StableFlow(flux, layers=LAYERS, preset=preset), num_steps=3)
    assert found["ratio"] == 1.0
    source = sf.StableFlow(flux, layers=LAYERS, kv_memory="device").invert(
        picture(64, 64), SOURCE, num_steps=4, solver="fireflow", inversion="paper"
    )
    assert source.store.num_bytes == flux.kv_bytes(64, 64) * len(LAYERS) * 5, "and one pass at the start"


def test_edits_leave_no_memory_behind(flux):
    found = growth(sf.StableFlow(flux, layers=LAYERS), edits=5, num_steps=1)
    assert found["python, 20 edits"] < 100_000


def test_further_edits_are_exact_and_the_engine_is_measured(flux):
    rows, exact = of_real(flux, LAYERS, picture(64, 64), rounds=1, presets=["fast"])
    assert exact and [row.what.split(",")[0] for row in rows] == ["first edit", "further edit"]
    assert rows[1].ratio > 1, "150 rows against 8"
    shares = engine_overhead(flux, tuple(LAYERS), num_steps=2, rounds=1)
    assert set(shares) == {"no hooks", "recording", "injecting", "seconds a step"}


def test_one_device(tmp_path, monkeypatch, capsys):
    arguments = ["--device", "cpu", "--size", "tiny", "--rounds", "1", "--eager", "--out", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["perf", *arguments])
    threads = torch.get_num_threads()
    program.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["exact"] and torch.get_num_threads() == threads
    for side in (64, 32):
        times = found[f"{side} px"]
        assert times["floor, row"] < times["eager"]["1 rows"] and times["floor, keys and values"] > 0


def test_tables_are_put_between_marks(tmp_path):
    ratio = {
        "what": "w",
        "reference": 3.0,
        "ours": 1.0,
        "ratio": 3.0,
        "low": 2.0,
        "high": 4.0,
        "target": 2.9,
        "runs": 2,
    }
    both = {"rows": [ratio], "exact": True}
    figures = dict.fromkeys(("edited", "told_kept", "hidden_kept", "psnr"), (0.5, 0.1))
    found = {
        "tiny": both,
        "mid": both,
        "presets": {"exact": PRESETS["exact"].describe()},
        "loss": {"exact": figures},
        "overhead": {"no hooks": 0.01, "recording": 0.0, "injecting": 0.0, "seconds a step": 0.2},
        "memory": {
            "keys and values": {"ratio": 1.0, "held": 1e6},
            "growth": {"edits": 100, "resident": 0, "python, 20 edits": 10},
        },
    }
    found["regions"] = {
        "side": 512, "steps": 8, "rows": [ratio], "differences": {"1/4": 2e-7}, "peak bytes": {"all": 9e7, "1/4": None}
    }  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text(f"a\n{BEGIN}old\n{END}\nb\n")
    write_between(page, tables(found))
    text = page.read_text()
    assert text.startswith(f"a\n{BEGIN}") and text.endswith(f"{END}\nb\n") and "old" not in text
    assert "| 1/4 | 3.00 s | 1.00 s | **3.00x** (2.00-4.00, 2 runs) | ≥ 2.9 | 2e-07 | ? of 90 MB |" in text
    assert "**3.00x** (2.00-4.00, 2 runs) | ≥ 2.9 |\n" in text and "| exact | 50 | 1 | 0.50 ± 0.10" in text
    page.write_text("a")
    with pytest.raises(InputError, match="lacks the lines"):
        write_between(page, "x")
