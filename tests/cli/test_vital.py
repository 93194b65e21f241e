"""`stableflow vital`, `bench` and `report`: what they write, what they say, what they refuse."""

import json

import pytest
from PIL import Image

from stableflow.vital.vitality import Vitality

QUICK = ["--steps", "2", "--similarity", "pixels", "--similarity", "latent_cosine"]


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "p.txt").write_text("# mine\na red dog\n\na blue cat\na red car\n")
    return ["--prompts", "p.txt"]


def test_measuring_writes_numbers_and_pictures(command, folder, prompts, tmp_path):
    code, out, err = command(
        "vital", folder, *prompts, *QUICK, "--choose", "top:2", "--windows", "2", "--strips", "1", "--format", "json"
    )
    assert code == 0, err
    result = json.loads(out)
    assert [row["layer"] for row in result["layers"]] == [0, 1, 2, 3, 4]
    assert sum(row["chosen"] for row in result["layers"]) == 2 and list(result["chosen"]) == ["pixels", "latent_cosine"]
    for name in ("vitality.png", "windows.png", "strip-1.png"):
        assert Image.open(tmp_path / "out" / "vital" / name).width > 200
    kept = Vitality.load(tmp_path / "out/vital/vitality.json")
    assert kept.prompts == ("a red dog", "a blue cat", "a red car") and kept.passes == 6 * 3 * 2
    code, out, _ = command("vital", "show", "out/vital/vitality.json")
    assert code == 0 and "vital by top:2, pixels" in out and "36 passes over 3 prompts" in out
    code, out, _ = command("vital", "compare", "out/vital/vitality.json", "out/vital/vitality.json")
    assert code == 0 and "rank correlation: 1.0" in out and "jaccard: 1.0" in out


def test_the_same_command_goes_on_and_another_is_refused(command, folder, prompts):
    assert command("vital", folder, *prompts, *QUICK, "--shard", "1/2", "-q")[1].startswith("shard 1/2 is done")
    assert command("vital", folder, *prompts, *QUICK, "--shard", "2/2", "-q")[0] == 0
    code, _, err = command("vital", folder, *prompts, "--steps", "3", "--similarity", "pixels", "-q")
    assert code == 2 and "holds another job" in err and "num_steps is 2 there and 3 here" in err


def test_a_dry_run_says_what_it_costs(command, folder, prompts, tmp_path):
    code, out, err = command("vital", folder, *prompts, *QUICK, "--dry-run")
    assert code == 0, err
    assert "runs: 18" in out and "passes: 36" in out and "minutes: " in out and not (tmp_path / "out").exists()


def test_presets_are_shown(command):
    code, out, _ = command("vital", "show", "black-forest-labs/FLUX.1-dev")
    assert code == 0 and "0, 1, 17, 18, 25, 28, 53, 54, 56" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "missing.txt"], "no prompt file missing.txt"),
        (["--prompts", "empty.txt"], "holds no prompt"),
        (["--prompts", "one.txt", "--similarity", "pixels"], "at least 2 prompts"),
        (["--prompts", "p.txt", "--similarity", "vgg"], "Unknown similarity 'vgg'. Known: dino_cls"),
        (["--prompts", "p.txt", "--encoder", "empty"], "could not be loaded"),
        (["--protocol", "quick"], "Unknown protocol 'quick'"),
        (["--choose", "best"], "gap, top:COUNT or threshold:VALUE"),
        (["--shard", "3/2"], "needs 1 <= i <= n"),
        (["--prompts", "p.txt", "--similarity", "pixels", "--choose", "top:9", "--steps", "1"], "top:9 needs 1 to 4"),
    ],
)
def test_bad_input_is_one_message(command, folder, prompts, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "one.txt").write_text("a red dog\n")
    (tmp_path / "empty").mkdir()
    code, out, err = command("vital", folder, *arguments, "-q")
    assert code == 2 and message in err and "Traceback" not in err and not out


def test_show_and_compare_refuse_what_is_no_measurement(command, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    for arguments in (["show", "x.json"], ["compare", "x.json", "x.json"]):
        code, _, err = command("vital", *arguments)
        assert code == 2 and "x.json is no vitality file" in err
    code, _, err = command("vital", "show", "unheard/of")
    assert code == 2 and "stableflow vital unheard/of" in err


def test_bench_and_report(command, tmp_path):
    code, out, err = command("bench", "scenes", "-n", "1", "--settings", "layers", "--out", "b", "-q")
    assert code == 0, err
    assert "| vital |" in out and (tmp_path / "b" / "report.html").exists()
    page = (tmp_path / "b" / "report.html").read_text()
    (tmp_path / "b" / "report.html").unlink()
    code, again, err = command("report", "b")
    assert code == 0, err
    assert again.splitlines()[:3] == out.splitlines()[:3]
    assert (tmp_path / "b" / "report.html").read_text().count("<tr>") == page.count("<tr>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "imagenet"], "Unknown data set 'imagenet'"),
        (["bench", "pie-bench"], "--data is missing"),
        (["bench", "scenes", "--settings", "every"], "Unknown set of settings 'every'"),
        (["bench", "scenes", "-n", "0"], "--count must lie in [1, 100000], got 0"),
        (["report", "nowhere"], "holds no benchmark"),
    ],
)
def test_bench_refuses(command, arguments, message):
    code, _, err = command(*arguments)
    assert code == 2 and message in err and "Traceback" not in err
