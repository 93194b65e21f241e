"""Commands with bad values and bad files: an error that says what is wrong, an exit code, no traceback, no results."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import stableflow as sf
from stableflow.cli.output import visible, without_half_characters
from stableflow.vital.vitality import Vitality

HUGE, NUMBERS = str(2**70), ["-1", "0", str(2**70), "1.5", "x", "nan", ""]
VITAL = ("vital", "tiny", "-q", "--count", "2", "--steps", "1", "--similarity", "latent_cosine")
BENCH = ("bench", "scenes", "-q", "--count", "2", "--offline")
EDIT = ("edit", "-q", "--prompt", "a red dog", "--to", "a cat", "--seed", "1", "--steps", "1")
OPTIONS = {
    VITAL: {
        "--count": ["1", *NUMBERS], "--steps": NUMBERS, "--batch": NUMBERS, "--seed": ["-1", "1.5", "x", HUGE, str(2**63)],
        "--windows": ["-1", "2", HUGE, "x"], "--strips": ["-1", "x"], "--ray": ["-1", HUGE, "x"],
        "--guidance": ["nan", "inf", "-1", "x"], "--choose": ["best", "top:0", "top:99", "top:" + "9" * 50, "threshold:nan", ""],
        "--protocol": ["exactly", ""], "--similarity": ["cosine", ""], "--prompts": ["no-such-file", "/", "/dev/zero", "a\0b"],
        "--shard": ["0/2", "3/2", "x", "1/" + "9" * 50, ""][:4], "--device": ["cuda:99", "moon", ""], "--dtype": ["int8", ""],
        "--offload": ["disk", "model"], "--quantise": ["int4", ""], "--lora": ["no_lora", "/dev/null", "/"],
        "--max-sequence-length": NUMBERS, "--out": ["/proc/none", "/dev/null/x", ""][:2], "--format": ["xml"],
    },
    BENCH: {
        "--count": NUMBERS, "--settings": ["best", ""], "--shard": ["0/2", "x"], "--ray": ["-1", HUGE], "--clip": ["no_clip"],
        "--dino": ["no_dino", "/"], "--lpips": ["no_lpips", "/dev/null"], "--data": ["no-such-file"],
        "--device": ["cuda:99", "moon"], "--out": ["/proc/none"], "--model": ["tiney", "/no/model", "a\0b", "~nosuchuserhere/m"],
    },
    ("scenes", "-q", "--count", "1"): {
        "--count": NUMBERS, "--size": ["15", "-1", HUGE, "x"], "--seed": ["-1", HUGE, "x"], "--out": ["/proc/none"],
    },
    EDIT: {
        "--seed": ["-1", "1.5", "x", HUGE], "--steps": NUMBERS[:-1], "--guidance": ["nan", "inf", "-1", "x", "1e30"], "--height": ["0", "-64", "63", HUGE, "x"],
        "--width": ["0", "65", HUGE], "--solver": ["rk9", ""], "--editor": ["", "no-such", "Stable-Flow", "a\x1b[31m"],
        "--set": ["x", "=1", "no_such=1", "weight=nan", "weight=[", "layers=[99]", "layers={}", "t_window=5", "preset=7", "policy={}", "strength=2", "kv_memory=tape",
                  "guidance_scale=-1", "guidance_scale=[1,2,3]", "token_mask=1", "weight=" + "[" * 500],
        "--mask": ["no-such.png", "/", "/dev/null", "box:", "box:1,2,3", "box:nan,0,1,1", "box:0,0,999,999", "word:zebra", "polygon:1", "points:-1,1,1", "~box:x", "x:y", "amount:1x1x1:!!"],
        "--strength": ["-0.1", "1.1", "nan", "x", ""], "--negative": ["ugly", "", "\udcff"], "--edit-guidance": ["nan", "-1", "x"], "--layers": ["x", "99", "0,0", "1.5", "-1"],
        "--weight": ["2", "nan", "x", "1:2:3"], "--window": ["1,0", "x", "0", "nan,1", "0,1,2"], "--keep": ["tape", ""], "--preset": ["best", ""], "--nudge": ["0", "-1", "nan", "1e30"],
        "--inversion": ["exactly"], "--config": ["no-such.yaml", "/", "/dev/zero"], "--from-image": ["no-such.png", "/", "/dev/null"], "--image": ["no-such.png", "/"],
        "--session": ["a\0b", "~nosuchuserhere/s", "/dev/null/x"][:0], "--model": ["tiney", "/no/model", "a\0b"], "--dtype": ["int8"], "--device": ["moon", "cuda:99"],
    },
    ("train", "draw"): {"--device": ["cuda:99", "moon", ""], "--from": ["no_bundle"], "--folder": ["/proc/none"]},
}  # fmt: skip
COMMANDS = [
    (*start, option, value)
    for start, options in OPTIONS.items()
    for option, values in options.items()
    for value in values
]
COMMANDS += [
    ("vital", "/no/model"), ("vital", "show", "no_such"), ("vital", "compare", "a.json", "b.json"), ("train", "fly"),
    ("bench", "no-such-set"), ("bench", "pie-bench"), ("bench", "flowedit", "--data", "/"), ("report", "no_folder"),
    ("report", "/dev/null"), ("doctor", "--model", "/no/model"), ("maps", "--prompt", "a", "--to", "b"), ("fly",),
    ("maps", "--prompt", "a", "--to", "b", "--point", "1"), ("maps", "--prompt", "a", "--to", "b", "--point", HUGE + ",1"),
    ("scenes", "extra"), ("train",), ("bench",), ("batch", "no-such.csv"), ("batch", "/"), ("batch", "/dev/zero"),
    (*VITAL, "--address", "auto"), (*BENCH, "--gpu-type", "A100"), ("batch", "jobs.csv", "--ray", "-1"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: ascii(" ".join(arguments[-2:]))[:60])
def test_bad_values_are_one_error_and_an_exit_code(command, tmp_path, arguments):
    code, out, err = command(*arguments)
    assert code in (1, 2), (code, out, err)
    assert "Traceback" not in err and "fault of stableflow" not in err, err
    problem = err if arguments[0] != "doctor" else out
    assert "rror" in problem or "PROBLEM" in problem or "Missing" in problem or "Usage" in problem
    assert len(problem) < 3000
    left = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    assert left == [], left


JOB = {"benchmark": "x", "model": "tiny", "settings": {"vital": {"curve": ""}}}
RECORD = {
    "case": "a", "setting": "vital", "category": "c", "prompt": "p", "edits": ["e"],
    "figures": {"psnr": [1.0], "edited": [1.0], "hidden_kept": [1.0]}, "pictures": {"source": "s.png", "edits": ["e.png"]},
}  # fmt: skip
OTHER = [None, 7, "x", [], {}, [[]], True, float("nan")]


def benchmark(folder, job=JOB, record=RECORD):
    (folder / "cells").mkdir(parents=True)
    (folder / "pictures").mkdir()
    for name in ("s.png", "e.png"):
        Image.new("RGB", (32, 32)).save(folder / "pictures" / name)
    (folder / "job.json").write_text(json.dumps(job))
    (folder / "cells" / "a.json").write_text(json.dumps(record))
    return folder


def test_a_sound_benchmark_is_reported(command, tmp_path):
    code, _, err = command("report", benchmark(tmp_path / "b"))
    assert code == 0 and (tmp_path / "b" / "report.html").is_file(), err


@pytest.mark.parametrize("value", OTHER, ids=repr)
@pytest.mark.parametrize("field", [*RECORD, "the whole"])
def test_records_of_another_shape(command, tmp_path, field, value):
    record = value if field == "the whole" else RECORD | {field: value}
    if field in ("edits", "figures") and value in ([], {}) and type(value) is type(RECORD[field]):
        pytest.skip("an empty one is sound; ends when a record must have figures")
    if field in ("case", "setting", "category", "prompt") and value == "x":
        pytest.skip("any text is sound; ends when records are bound to cases")
    code, _, err = command("report", benchmark(tmp_path / "b", record=record))
    assert code == 2 and "a.json" in err and "Traceback" not in err and len(err) < 1500


@pytest.mark.parametrize("value", OTHER, ids=repr)
@pytest.mark.parametrize("field", [*JOB, "the whole"])
def test_jobs_of_another_shape(command, tmp_path, field, value):
    job = value if field == "the whole" else JOB | {field: value}
    if (field, value) in (("benchmark", "x"), ("model", "x"), ("settings", {})):
        pytest.skip("sound; ends when names are bound to what is known")
    code, _, err = command("report", benchmark(tmp_path / "b", job=job))
    assert code == 2 and "job.json" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "name", ["../../secret", "../job.json", "/etc/hostname", "link.png", "hop/secret", "..\\secret", "a\0", "t.png"]
)
@pytest.mark.parametrize("where", ["source", "edits", "target"])
def test_a_report_takes_only_the_folders_own_pictures(command, tmp_path, name, where):
    folder = tmp_path / "b"
    pictures = RECORD["pictures"] | {where: [name] if where == "edits" else name}
    benchmark(folder, record=RECORD | {"pictures": pictures})
    (tmp_path / "secret").write_text("the key of the house")
    (folder / "pictures" / "link.png").symlink_to(tmp_path / "secret")
    (folder / "pictures" / "hop").symlink_to(tmp_path)
    (folder / "pictures" / "t.png").write_text("the key of the house")
    code, _, err = command("report", folder)
    assert code == 2 and "Traceback" not in err and not (folder / "report.html").exists()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("v") / "vitality.json"
    prompts = ["a red dog standing on the grass", "a cat"]
    from stableflow.vital.protocol import Protocol

    sf.measure_vitality(sf.load("tiny"), prompts, protocol=Protocol(prompts=2, num_steps=1)).save(path)
    return json.loads(path.read_text())


def test_vitality_files_of_another_shape(command, tmp_path, measured):
    path = tmp_path / "v.json"
    needed = ("format", "model", "checkpoint", "protocol", "choice", "kinds", "flags", "passes", "prompts", "scores")
    for field in needed:
        missing = {name: value for name, value in measured.items() if name != field}
        for content in [
            missing,
            *(measured | {field: value} for value in (None, 7.5, [], [None], {"x": []}, {"a": [["b"]]})),
        ]:
            if field == "protocol" and isinstance(content.get(field), dict):
                continue
            path.write_text(json.dumps(content))
            code, _, err = command("vital", "show", path)
            assert code == 2 and "v.json is no vitality file" in err and len(err) < 1500, (
                field,
                content.get(field),
                err,
            )
    path.write_text(json.dumps(measured))
    assert Vitality.load(path).chosen == tuple(measured["chosen"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[31mb", "a\\x1b[31mb"), ("\x07\x08\r", "\\x07\\x08\\x0d"), ("\x9b0m", "\\x9b0m"), ("a\u202eb", "a\\u202eb"),
     ("\udcff", "\\udcff"), ("a\u2028b", "a\\u2028b"), ("\x7f\x00", "\\x7f\\x00"), ("é\U0001f600\n\tx", "é\U0001f600\n\tx")],
)  # fmt: skip
def test_what_acts_on_a_terminal_is_shown(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_nothing_that_acts_is_left(text):
    shown = visible(text)
    assert all(c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) for c in shown)
    shown.encode(), without_half_characters(text + "\udcff").encode()


def test_strangers_text_is_shown_in_errors_and_results(command, tmp_path):
    record = RECORD | {"setting": "vital\x1b]0;owned\x07", "prompt": "\x1b[2J"}
    code, out, err = command("report", benchmark(tmp_path / "b", record=record))
    assert code == 0 and "\x1b" not in out + err and "\\x1b]0;owned\\x07" in out
    code, out, err = command("report", tmp_path / "no\x1b[31mfolder")
    assert code == 2 and "\x1b" not in out + err
