"""A benchmark runs what it says, keeps what it did, and shows failures instead of stopping at them."""

import json
import math
from dataclasses import replace

import pytest
import torch

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.datasets.scenes import CATEGORIES, load_scenes
from stableflow.benchmarks.equal_rate import curves, kept_at
from stableflow.benchmarks.judges import MetricJudge, SceneJudge
from stableflow.benchmarks.pie_recipe import pie_judges
from stableflow.benchmarks.run import Benchmark
from stableflow.benchmarks.scene_edits import KINDS, THIRD_KINDS
from stableflow.benchmarks.settings import SETTINGS, Setting
from stableflow.benchmarks.summary import categories, failures, markdown, summarise
from stableflow.errors import InputError
from stableflow.jobs.cells import Cells
from stableflow.jobs.run import Shard
from stableflow.metrics import MSE, PSNR, Clip, Keys
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path
from stableflow.reports.page import Axes, write_page
from stableflow.scenes import ATTRIBUTES, attributes, changed_region, render
from stableflow.vital import presets
from stableflow.vital.presets import Preset

CASES = [
    Case("drawn", "a red dog", ("a blue cat", "a red car"), "object replacement", seed=1),
    Case("given", "a red dog", ("a red car",), "colour", image=torch.rand(3, 16, 16), mask=torch.eye(16) > 0),
]
STEPS = {"num_steps": 3}
NONE = Setting("none", source=STEPS, edit={"layers": []})
ALL = Setting("all", source=STEPS, edit={"layers": [0, 1, 2, 3, 4]})
JUDGES = [MetricJudge(PSNR()), MetricJudge(PSNR(), "outside")]


def test_it_runs_every_case_under_every_setting(model, tmp_path):
    benchmark = Benchmark(model, "test", CASES, [NONE, ALL], JUDGES, folder=tmp_path)
    assert benchmark.run()
    records = benchmark.records()
    assert [(r["case"], r["setting"]) for r in records] == [(c.id, s) for c in CASES for s in ("none", "all")]
    assert len(records[0]["figures"]["psnr"]) == 2 and "psnr_outside" not in records[0]["figures"]
    assert records[0]["figures"] != records[1]["figures"], "the settings of the edit arrive"
    assert len(records[2]["figures"]["psnr_outside"]) == 1 and records[0]["nfe"]["edit"] == 3
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2 + 2 * (2 + 1)
    assert categories(records) == ["object replacement", "colour"] and not failures(records)


def test_it_goes_on_where_it_was_and_in_shards(model, tmp_path):
    whole = Benchmark(model, "test", CASES, [NONE, ALL], JUDGES)
    whole.run()
    assert not Benchmark(model, "test", CASES, [NONE, ALL], JUDGES, folder=tmp_path).run(shard=Shard(1, 2))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    rest = Benchmark(model, "test", CASES, [NONE, ALL], JUDGES, folder=tmp_path)
    assert rest.run() and len(before) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert [r["figures"] for r in rest.records()] == [r["figures"] for r in whole.records()]
    with pytest.raises(InputError, match="holds another job: settings"):
        Benchmark(model, "test", CASES, [replace(NONE, region="box:0,0,8,8")], JUDGES, folder=tmp_path)


def test_it_may_begin_with_less_and_bring_more(model, tmp_path):
    few = Benchmark(model, "test", CASES[:1], [NONE], JUDGES, folder=tmp_path)
    few.run()
    more = Benchmark(model, "test", CASES, [NONE, ALL], JUDGES, folder=tmp_path)
    assert len(more.records()) == 1 and more.records() == few.records()
    assert more.run() and len(more.records()) == 2 * len(CASES)
    assert list(Cells.open(tmp_path).job["settings"]) == [NONE.name, ALL.name]
    assert len(Benchmark(model, "test", CASES[:1], [NONE], JUDGES, folder=tmp_path).records()) == 1
    assert list(Cells.open(tmp_path).job["settings"]) == [NONE.name, ALL.name], "what is there stays"


def test_a_failing_trial_is_a_record(model, tmp_path):
    broken = Setting("broken", "sdedit", {"strength": 7.0})
    benchmark = Benchmark(model, "test", CASES, [NONE, broken], JUDGES, folder=tmp_path)
    assert benchmark.run()
    records = benchmark.records()
    assert "strength must lie in [0, 1]" in records[1]["error"] and failures(records) == {"broken": 2}
    assert list(summarise(records)) == ["none"]
    page = write_page(tmp_path, records, [Axes("psnr", "psnr")], title="t", command="c", gallery=["none"]).read_text()
    assert "broken: 2 failed" in page and page.count("data:image/png;base64,") >= 6 and "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ), "nothing is fetched"


def test_a_data_set_that_changed_is_another_job(model, tmp_path):
    Benchmark(model, "test", CASES[:1], [NONE], JUDGES, folder=tmp_path)
    changed = Case("drawn", "a blue dog", CASES[0].edits, "object replacement", seed=1)
    with pytest.raises(InputError, match="holds another job: cases"):
        Benchmark(model, "test", [changed], [NONE], JUDGES, folder=tmp_path)


def test_outside_is_where_the_edit_may_not_change_anything():
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:, 8:] = True
    source = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    case = Case("c", "a dog", ("a cat",), "x", image=source[0], mask=mask)
    edit = torch.where(mask, 1 - source, source)
    outside, inside = (MetricJudge(MSE(), where)(case, source, edit) for where in ("outside", "inside"))
    assert outside == {"mse_outside": [0.0]} and inside["mse_inside"][0] > 0.1


def test_names_must_differ(model):
    for cases, settings in (([], [NONE]), (CASES, []), ([CASES[0]] * 2, [NONE]), (CASES, [NONE, NONE])):
        with pytest.raises(InputError, match="no two of one name"):
            Benchmark(model, "test", cases, settings, JUDGES)


def test_hostile_names_stay_in_the_folder(model, tmp_path):
    case = Case("../../etc/passwd", "a red dog", ("a cat",), "colour", seed=1)
    Benchmark(model, "test", [case], [NONE], JUDGES, folder=tmp_path / "in").run()
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_every_set_of_settings_can_be_made(model, monkeypatch):
    preset = Preset((1, 3), 5, ("random-flux",), model.checkpoint_hash(), "test")
    monkeypatch.setattr(presets, "all_presets", lambda: [preset])
    for name, make in SETTINGS.items():
        settings = make(model)
        assert len({setting.name for setting in settings}) == len(settings), name
        json.dumps([dict(setting.edit) for setting in settings])


def test_the_scenes_are_their_own_ground_truth():
    """True renders of the edit count as made, the source itself as not, whatever the model."""
    cases, edits = load_scenes(22, real=True)
    assert [case.category for case in cases] == [CATEGORIES[edits[case.id].kind] for case in cases]
    assert len({case.category for case in cases}) == len(KINDS) == 11
    judge = SceneJudge(edits, AttributeClassifier.load(bundled_path("classifier")))
    for case in cases:
        edit = edits[case.id]
        assert torch.equal(case.image, render(edit.source)) and torch.equal(case.target, render(edit.target))
        everything = edit.kind == "style"
        assert case.mask.all() if everything else torch.equal(case.mask, changed_region(edit.source, edit.target))
        unchanged = judge(case, case.image[None], case.image[None])
        assert unchanged["edited"] == [0] and unchanged["hidden_kept"] == [1]
        assert unchanged["psnr"] == pytest.approx([math.nan if everything else 60], nan_ok=True)
    true = [judge(case, case.image[None], case.target[None]) for case in cases]
    assert sum(figures["edited"][0] for figures in true) >= 21  # the classifier's ceiling
    assert all(figures["psnr_target"] == [60] for figures in true)
    outside = [figures["psnr"][0] for case, figures in zip(cases, true) if not case.mask.all()]
    assert min(outside) > 42, "the region's tolerance, 2/255: a watercolour runs a little beyond it"
    assert sum(value == 60 for value in outside) > len(outside) / 2
    removed = [edits[case.id] for case in cases if edits[case.id].kind == "removal"]
    assert all(getattr(edit.target, edit.attribute) == "none" for edit in removed) and set(ATTRIBUTES) > {"hat"}


def test_scenes_of_the_third_layer_move_resize_and_meet():
    """The caption says what changes, and nothing else in the scene does."""
    cases, edits = load_scenes(28, real=True, size=32, layers=3)
    kinds = [edits[case.id].kind for case in cases]
    assert kinds == [*KINDS, *THIRD_KINDS] * 2 and len(set(CATEGORIES.values())) == 14
    for case in cases:
        edit = edits[case.id]
        if edit.kind in THIRD_KINDS:
            assert (edit.source.companion, edit.source.sign) == ("none", "none")
            words = {
                "position": ("on the left", "on the right"),
                "size": ("far away", "close up"),
                "second": ("and a",),
            }
            assert any(word in case.edits[0] for word in words[edit.kind]) and case.edits[0] != case.prompt
            changed = [name for name in attributes(3) if getattr(edit.source, name) != getattr(edit.target, name)]
            assert changed == [edit.kind]


def test_summaries():
    records = [
        {"case": f"{i}", "setting": "a", "category": "x" if i % 2 else "y", "figures": {"f": [float(i)], "g": [None]}}
        for i in range(10)
    ]
    summary = summarise(records)
    assert summary["a"]["f"].mean == 4.5 and "g" not in summary["a"]
    assert 2.5 < summary["a"]["f"].low < 3.6 and 5.4 < summary["a"]["f"].high < 6.5
    assert summarise(records, category="x")["a"]["f"].count == 5
    assert markdown(summary).splitlines()[2].startswith("| a | 4.5 [")


def test_equal_rates():
    points = [(1.0, 0.5), (0.8, 0.7), (0.4, 0.9)]
    assert kept_at(points, 0.9) == pytest.approx(0.6) and kept_at(points, 0.6) == pytest.approx(0.8)
    assert kept_at(points, 0.3) == 0.9 and kept_at(points, 1.1) is None
    assert kept_at([(1.0, 0.9), (0.5, 0.7)], 0.8) == 0.9, "a point further up the curve may keep more"
    records = [
        {"case": "c", "setting": name, "category": "x", "figures": {"e": [e], "k": [k]}}
        for name, e, k in (("none", 1.0, 0.5), ("a early", 0.8, 0.7), ("a", 0.4, 0.9), ("b", 0.2, 0.6))
    ]
    found = curves(records, {"none": "", "a early": "a", "a": "a", "b": "b"}, edited="e", kept="k")
    assert found == {"a": points, "b": [(1.0, 0.5), (0.2, 0.6)]}


def test_the_pie_recipe_on_a_synthetic_mask():
    """Half of the picture may change: outside it the blackened pictures differ only where the edit did."""
    generator = torch.Generator().manual_seed(0)
    source, edit = torch.rand(2, 1, 3, 64, 64, generator=generator)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, 32:] = True
    case = Case("pie", "a dog", ("a cat",), "change-object", image=source[0], mask=mask)
    clip, keys = Clip.load(bundled_path("clip")), Keys.load(bundled_path("dinov2"))
    found = {k: v[0] for judge in pie_judges(clip, keys) for k, v in judge(case, source, edit).items()}
    error = (source - edit)[..., :32].square().sum() / (3 * 64 * 64)  # over the whole picture, black half included
    assert found["mse_unedit_part"] == pytest.approx(error.item(), rel=1e-5)
    assert found["psnr_unedit_part"] == pytest.approx(-10 * error.log10().item(), rel=1e-5)
    text, whole, part = clip.embed_texts(["a cat"]), clip.embed_images(edit), clip.embed_images(edit * mask)
    assert found["clip_similarity_target_image"] == pytest.approx((text * whole).sum().item(), abs=1e-5)
    assert found["clip_similarity_target_image_edit_part"] == pytest.approx((text * part).sum().item(), abs=1e-5)
    kept = torch.where(mask, edit, source)
    same = {k: v[0] for judge in pie_judges(clip, keys) for k, v in judge(case, source, kept).items()}
    assert (
        same["mse_unedit_part"] == 0
        and same["ssim_unedit_part"] == pytest.approx(1)
        and found["structure_distance"] > 0
    )
    unmasked = Case("plain", "a dog", ("a cat",), "x", seed=1)
    with pytest.raises(InputError, match="needs a mask of"):
        pie_judges(clip, keys)[1](unmasked, source, edit)
