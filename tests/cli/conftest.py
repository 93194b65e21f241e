"""The commands run in this process, on a folder with a tiny random FLUX."""

import sys
import warnings

import pytest
from tiny_flux import tiny_flux_pipeline

from stableflow.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_flux_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def command(folder, monkeypatch, capsys, tmp_path):
    """Run `stableflow ...` in this process; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stableflow", *map(str, arguments)])
        code = 0
        try:
            main.run()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run
