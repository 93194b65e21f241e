"""kill -9 for every command that writes: what was there is whole, what is left loads, and the same command succeeds.

Each run is a fork of this process, so that it costs no start; it is killed at a random moment of its own length.
"""

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.benchmarks.settings import SETTINGS, Setting
from stableflow.cli import main
from stableflow.files import ASIDE
from stableflow.training import recipe as training

PROMPT, EDITED = "a red dog standing on the grass", "a blue cat sitting on the snow"
KILLS = 2
SETTINGS.register("one")(lambda model: [Setting("one", "sdedit", {"num_steps": 2, "strength": 0.5})])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_flux_pipeline().save_pretrained(folder / "flux")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(folder / "given.png")
    return folder


def verbs(folder, out):
    model = ("-m", folder / "flux", "--layers", "0,3", "--steps", "2", "-q", "--out", out)
    real = ("--image", folder / "given.png", "--prompt", PROMPT)
    return {
        "edit": ("edit", "--prompt", PROMPT, "--seed", "1", "--to", EDITED, "--session", out / "session", *model),
        "invert": ("invert", *real, *model),
        "maps": ("maps", *real, "--to", EDITED, "--point", "3,3", *model),
        "vital": (
            "vital",
            folder / "flux",
            "-q",
            "--choose",
            "top:2",
            "--count",
            "2",
            "--steps",
            "1",
            "--similarity",
            "latent_cosine",
            "--out",
            out,
        ),
        "bench": ("bench", "scenes", "-q", "--count", "1", "--offline", "--settings", "one", "--out", out),
        "scenes": ("scenes", "-q", "--count", "3", "--size", "64", "--out", out),
        "report": ("report", folder / "bench"),
        "train draw": ("train", "draw", "--folder", out),
    }


def start(arguments) -> int:
    """Run `stableflow ...` in a fork; returns its process."""
    pid = os.fork()
    if pid:
        return pid
    try:
        sys.stdout = sys.stderr = io.StringIO()
        sys.argv = ["stableflow", *map(str, arguments)]
        few = dataclasses.replace(training.RECIPES["tiny"], scenes=200, validation_scenes=20)
        training.RECIPES["tiny"] = few
        warnings.simplefilter("ignore")
        main.run()
        os._exit(0)
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(70)


def finished(arguments) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(start(arguments), 0)[1])


def check_whole(path: Path) -> None:
    """Every file under its own name can be read to its end."""
    for file in path.rglob("*"):
        if not file.is_file() or file.name.endswith((ASIDE, ".lock")):
            continue
        if file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".png":
            with Image.open(file) as image:
                image.load()
        elif file.suffix == ".npy":
            assert len(np.load(file, mmap_mode="r"))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                assert [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118
        elif file.suffix == ".html":
            assert file.read_text().rstrip().endswith("</html>")


def check_session(path: Path) -> None:
    """A session loads, or is refused: never one file's settings over another's tensors."""
    if (path / "source.json").exists():
        try:
            assert sf.Source.load(path).fingerprint.prompt == PROMPT
        except sf.StableFlowError as error:
            assert "source." in str(error)


@pytest.fixture(scope="module", autouse=True)
def benchmark_of_records(folder):
    from test_command_line import benchmark

    benchmark(folder / "bench")


@pytest.mark.parametrize("verb", ["edit", "invert", "maps", "vital", "bench", "scenes", "report", "train draw"])
def test_killed_at_random(folder, tmp_path, verb):
    out = folder / "bench" if verb == "report" else tmp_path / "out"
    arguments = verbs(folder, out)[verb]
    started = time.monotonic()
    assert finished(arguments) == 0
    length, before = time.monotonic() - started, sorted(path.name for path in out.rglob("*") if path.is_file())
    moments = random.Random(verb)
    for attempt in range(KILLS):
        if attempt % 2 and verb != "report":  # over nothing, and over what an earlier run left
            shutil.rmtree(out, ignore_errors=True)
        pid = start(arguments)
        time.sleep(length * (0.1 + 0.9 * moments.random()))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        check_whole(out)
        for path in (out, out / "session"):
            check_session(path)
    assert finished(arguments) == 0
    check_whole(out)
    left = sorted(path.name for path in out.rglob("*") if path.is_file() and not path.name.endswith(ASIDE))
    assert left == [name for name in before if not name.endswith(ASIDE)]


@pytest.mark.parametrize("verb", ["edit", "vital", "train draw"])
def test_two_processes_on_one_folder(folder, tmp_path, verb):
    """Both end, one may be refused; what is left is of one of them and whole."""
    out = tmp_path / "out"
    arguments = verbs(folder, out)[verb]
    pids = [start(arguments), start(arguments)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert 0 in codes and set(codes) <= {0, 1, 2}
    check_whole(out)
    check_session(out / "session")
    assert finished(arguments) == 0
