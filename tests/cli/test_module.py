"""`python -m stableflow` is the `stableflow` command."""

import runpy
import tomllib
from pathlib import Path

import stableflow.cli.launch


def test_the_module_runs_what_the_command_runs(monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"stableflow": "stableflow.cli.launch:main"}
    ran = []
    monkeypatch.setattr(stableflow.cli.launch, "main", lambda: ran.append("main"))
    runpy.run_module("stableflow", run_name="__main__")
    assert ran == ["main"]
