"""A model that is neither here nor within reach is one short error at once; the libraries keep quiet."""

import subprocess
import sys
import time

import pytest
from huggingface_hub import constants

import stableflow as sf
from stableflow.errors import LoadError
from stableflow.models.hub import without_hub

QUIET = """
import stableflow as sf
sf.load, sf.StableFlow
"""


def test_a_hub_out_of_reach_is_one_error_at_once(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(LoadError, match="nobody/no-such-model is not in the local cache") as caught:
        sf.load("nobody/no-such-model", device="cpu")
    assert time.monotonic() - started < 5 and len(str(caught.value)) < 400


def test_only_hub_ids_ask_for_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("stableflow.models.hub._reachable", lambda: pytest.fail("asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not without_hub(False, tmp_path, None, "tiny", str(tmp_path))
    assert without_hub(True, "a/b")


def test_nothing_is_printed_of_what_the_libraries_miss():
    run = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "torchao" not in run.stderr and "Failed to load" not in run.stderr, run.stderr
