"""An editor of another package, found by its entry point: by name, on the command line, and from its picture."""

import configparser
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stableflow.editing import EDITORS
from stableflow.region import Region

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin_editor"


@pytest.fixture
def installed(tmp_path_factory, monkeypatch):
    """What pip would leave of the example: its module, and metadata with its entry points."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "renoise.py", site)
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = configparser.ConfigParser()
    points.read_dict(project["entry-points"])
    with (metadata / "entry_points.txt").open("w") as file:
        points.write(file)
    monkeypatch.syspath_prepend(site)
    yield
    EDITORS._entries.pop("renoise", None)
    __import__("sys").modules.pop("renoise", None)


def test_without_the_package_there_is_no_such_editor(command):
    assert "renoise" not in EDITORS
    code, _, err = command("edit", "--prompt", "a dog", "--to", "a cat", "--editor", "renoise")
    assert code == 2 and "Unknown editor 'renoise'" in err


def test_the_editor_is_found_by_its_entry_point(installed, model):
    assert "renoise" in list(EDITORS)
    editor = EDITORS["renoise"](model, num_steps=4)
    source = editor.generate("a red dog", seed=1, num_steps=3)
    result = editor.edit(source, ["a blue dog", "a red cat"], region=Region.box(0, 0, 8, 16, (16, 16)), strength=0.8)
    assert result.recipe["editor"]["name"] == "renoise" and result.recipe["nfe"]["edit"] >= 2
    assert torch.equal(result.images[..., 12:], source.images[..., 12:].expand(2, -1, -1, -1))
    assert not torch.equal(result.images[..., :4], source.images[..., :4].expand(2, -1, -1, -1))


def test_the_command_line_lists_uses_and_repeats_it(installed, command, folder, tmp_path):
    code, out, _ = command("editors", "renoise")
    assert code == 0 and "z_t1 = (1 - t1)" in out
    code, _, err = command("edit", "-m", folder, "--prompt", "a red dog", "--to", "a blue dog", "--seed", "1",
                           "--steps", "2", "--editor", "renoise", "--set", "num_steps=3", "--out", "o")  # fmt: skip
    assert code == 0, err
    code, _, err = command("edit", "-m", folder, "--from-image", "o/edit_1.png", "--out", "o2")
    assert code == 0, err
    first, second = (np.asarray(Image.open(tmp_path / out / "edit_1.png")) for out in ("o", "o2"))
    assert np.array_equal(first, second)
