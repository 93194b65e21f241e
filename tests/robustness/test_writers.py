"""Every writer: killed or on a full disk it leaves the old whole, or the new, and never half of one."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import stableflow
from stableflow import files
from stableflow.errors import InputError, LoadError, OutputError
from stableflow.files import only_process, replacing, replacing_folder, write_text_atomic, write_text_once
from stableflow.images import save_png
from stableflow.jobs.cells import Cells
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.training.data import scene_data
from stableflow.training.loop import Checkpoint, load_checked
from stableflow.training.parallel import World

WORLD = World(0, 1, torch.device("cpu"))
SOURCE = Path(stableflow.__file__).parent
RAW = {"write_text", "write_bytes", "save_file", "savefig", "save_pretrained"}
SAVES_OF_MODULES = {("torch", "save"), ("np", "save"), ("numpy", "save"), ("json", "dump"), ("yaml", "dump")}
WHOLE = {"replacing", "replacing_folder", "write_text_once"}


def raw_writes(tree: ast.AST, inside: bool = False):
    """Calls that write a file, outside a `with replacing(...)`."""
    for node in ast.iter_child_nodes(tree):
        within = inside
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            within = inside or any(getattr(call.func, "id", "") in WHOLE for call in calls)
        if isinstance(node, ast.Call) and not inside and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            owner = getattr(getattr(node.func, "value", None), "id", "")
            mode = next(
                (a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)), ""
            )
            opens = name == "open" and set(mode) & set("wax+") and len(mode) < 4
            if name in RAW or (owner, name) in SAVES_OF_MODULES or opens:
                yield node.lineno, name
        yield from raw_writes(node, within)


def test_there_is_no_writer_that_does_not_write_aside():
    """By search over the source, not by memory: whatever writes is within `replacing` or its like."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        if path.name == "files.py" and path.parent == SOURCE:
            continue
        writes = [f"{line}: {name}" for line, name in raw_writes(ast.parse(path.read_text()))]
        if writes:
            found[str(path.relative_to(SOURCE))] = writes
    in_memory = {"reports/page.py", "sixteen_bit.py"}  # a figure into a buffer; what exact.py gives a path aside to
    no_files = {"benchmarks/perf/regions.py"}  # the system's counter of memory
    told = {"serving/simulate.py"}  # figures to the standard output
    of_one_request = {"serving/wire.py"}  # a folder that nobody reads but the request it is made for
    diffusers_own = {"integrations/modular.py", "integrations/pipeline.py"}  # folders as `save_pretrained` writes them
    known = in_memory | no_files | told | of_one_request | diffusers_own
    assert {name: lines for name, lines in found.items() if name not in known} == {}


def no_space(*arguments, **settings):
    raise OSError(28, "No space left on device")


def classifier():
    return AttributeClassifier({"subject": ["dog", "cat"]}, (4, 4))


WRITERS = {
    "text": lambda path: write_text_atomic(path / "a.txt", "new"),
    "picture": lambda path: save_png(path / "a.png", Image.new("RGB", (32, 32)), text={"a": "b"}),
    "tensors": lambda path: _tensors(path / "a.safetensors"),
    "checkpoint": lambda path: Checkpoint(path / "a", WORLD, lambda: [torch.ones(3)], print).save(1),
    "cells": lambda path: Cells(path, {"a": 1}).put("b", {"c": 1}),
}


def _tensors(path):
    with replacing(path) as temporary:
        save_file({"a": torch.ones(3)}, temporary)


@pytest.mark.parametrize("failing", ["fsync", "replace", "mkstemp"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_error_and_leaves_the_old(tmp_path, monkeypatch, kind, failing):
    WRITERS[kind](tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if kind == "cells":
        write = lambda path: Cells(path, {"a": 1}).put("b", {"c": 2})  # noqa: E731
    else:
        write = WRITERS[kind]
    target = {"fsync": files.os, "replace": Path, "mkstemp": files.tempfile}[failing]
    monkeypatch.setattr(target, failing, no_space)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


TORCH_ON_A_FULL_DISK = [
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
]


@pytest.mark.parametrize("error", TORCH_ON_A_FULL_DISK)
def test_what_torch_says_of_a_full_disk_is_the_same_error(tmp_path, error):
    with pytest.raises(OutputError, match="Cannot write"), replacing(tmp_path / "a"):
        raise error
    with pytest.raises(RuntimeError, match="shape"), replacing(tmp_path / "a"):
        raise RuntimeError("another shape")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with replacing_folder(tmp_path / "model") as temporary:
            (temporary / text).write_text(text)
        assert [path.name for path in (tmp_path / "model").iterdir()] == [text]
    with pytest.raises(OutputError), replacing_folder(tmp_path / "model") as temporary:
        (temporary / "three").write_text("half")
        no_space()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "two"]
    (tmp_path / "model").rename(tmp_path / ".model.former")  # killed between the two renames
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert (tmp_path / "model" / "two").read_text() == "two"


LOOP = """
import sys, torch
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from stableflow.files import replacing, replacing_folder, write_text_atomic
from stableflow.images import save_png
from stableflow.training.loop import Checkpoint
from stableflow.training.parallel import World
folder, i = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    i += 1
    write_text_atomic(folder / "a.json", "[" + ", ".join([str(i)] * 50000) + "]")
    save_png(folder / "a.png", Image.new("RGB", (256, 256), (i % 256,) * 3))
    Checkpoint(folder / "a", World(0, 1, torch.device("cpu")), lambda: [torch.full((100000,), i)], print).save(i)
    with replacing_folder(folder / "model") as temporary:
        for name in "ab":
            save_file({"x": torch.full((50000,), i)}, temporary / f"{name}.safetensors")
"""


@pytest.mark.parametrize("after", [0.05, 0.4])
def test_kill_9_leaves_whole_files(tmp_path, after):
    from safetensors.torch import load_file

    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ.copy()
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 30
    while not (tmp_path / "model").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(set(json.loads((tmp_path / "a.json").read_text()))) == 1
    with Image.open(tmp_path / "a.png") as image:
        image.load()
    assert len(load_checked(next(tmp_path.glob("a.rank0of1.pt")))["state"][0].unique()) == 1
    with replacing_folder(tmp_path / "other"):
        pass
    whole = tmp_path / "model" if (tmp_path / "model").exists() else tmp_path / ".model.former"
    values = {int(load_file(whole / f"{name}.safetensors")["x"].unique()) for name in "ab"}
    assert len(values) == 1


@pytest.mark.parametrize("cut", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("which", ["train-64-4.npy", "train-64-4-tokens.npy"])
def test_scenes_that_are_half_written_are_drawn_again(tmp_path, which, cut):
    drawn = scene_data(tmp_path, count=4, size=64, workers=1)
    images, tokens = np.array(drawn.images), drawn.tokens.clone()  # what was read lies in the file that is cut now
    path = tmp_path / which
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    again = scene_data(tmp_path, count=4, size=64, workers=1)
    assert np.array_equal(again.images, images) and torch.equal(again.tokens, tokens)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x80\4cos\nsystem\n(S'true'\ntR.", "other", "half"])
def test_checkpoints_that_are_damaged_are_named(tmp_path, content):
    checkpoint = Checkpoint(tmp_path / "a", WORLD, lambda: [torch.ones(999)], lambda kept: kept[5])
    checkpoint.save(3)
    path = tmp_path / "a.rank0of1.pt"
    if content == "half":
        path.write_bytes(path.read_bytes()[:500])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(LoadError, match="a.rank0of1.pt"):
        checkpoint.resume()


def test_of_several_jobs_that_start_on_one_folder_one_has_it(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def start(i):
        try:
            return Cells(tmp_path, {"job": i}).job["job"]
        except InputError as error:
            assert "another job" in str(error)

    with ThreadPoolExecutor(16) as pool:
        winners = [i for i in pool.map(start, range(64)) if i is not None]
    assert winners == [json.loads((tmp_path / "job.json").read_text())["job"]]
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_one_process_a_stage(tmp_path):
    first, second = (only_process(tmp_path / ".lock", "the stage flow") for _ in range(2))
    with first, pytest.raises(OutputError, match="the stage flow"), second:
        pass
    with only_process(tmp_path / ".lock", "x"):
        pass


def test_what_a_kill_left_is_removed_after_a_while(tmp_path):
    old, new = tmp_path / f".a.x{files.ASIDE}", tmp_path / f".b.x{files.ASIDE}"
    old.touch(), new.touch()
    os.utime(old, (0, 0))
    files.check_writable(tmp_path)
    assert not old.exists() and new.exists()


def test_written_once(tmp_path):
    assert write_text_once(tmp_path / "a", "one") and not write_text_once(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 120, "a b", "-a"])
def test_long_and_odd_names(tmp_path, name):
    write_text_atomic(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_classifier_is_written_whole(tmp_path, monkeypatch):
    model = classifier()
    model.save(tmp_path / "c")
    assert AttributeClassifier.load(tmp_path / "c").values == model.values
    for text in ("{", "[]", "{}", '{"heads": 1, "channels": 2}'):
        (tmp_path / "c" / "config.json").write_text(text)
        with pytest.raises(LoadError, match="no attribute classifier"):
            AttributeClassifier.load(tmp_path / "c")
