"""What the documentation shows runs, on the bundled model."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from stableflow.editing import EDITORS

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/concepts/moving.md",
    "docs/concepts/regions.md",
    "docs/extending.md",
    "docs/editors.md",
    "docs/concepts/attention.md",
    "docs/concepts/speed.md",
]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page, workplace):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_files_that_the_pages_point_to_exist():
    for page in ROOT.glob("**/*.md"):
        if ".venv" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_editor_has_its_row():
    page = (ROOT / "docs/editors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z-]+) \| (?:\[|none)", page, re.MULTILINE)
    assert rows == list(EDITORS), "python examples/editors_table.py docs/editors.md writes them"


def test_the_demo(workplace):
    runpy.run_path(str(ROOT / "examples" / "demo.py"))["main"](workplace / "demo")
    for kind in ("generated", "real"):
        assert len(list((workplace / "demo" / kind).glob("edit_*.png"))) >= 4


def test_the_attention_figure(workplace, capsys):
    example = runpy.run_path(str(ROOT / "examples" / "attention_figure.py"))
    editor = example["sf"].StableFlow(example["sf"].load("tiny"))
    example["draw"](editor, workplace / "attention")
    example["measure"](editor, 2)
    assert (workplace / "attention" / "attention.png").exists() and "layer 3, double" in capsys.readouterr().out


def test_the_house_is_as_drawn():
    """Its layers are import-linter's, every file that it names is there, and every part of the package is named."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = [line.replace("stableflow.", "") for line in contracts[0]["layers"]]
    assert re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0].splitlines() == layers
    package = ROOT / "src" / "stableflow"
    named = set(re.findall(r"`([a-z_/]+(?:\.py|/))`", page))
    assert [name for name in named if not (package / name).exists()] == []
    parts = {path.name + "/" * path.is_dir() for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    parts -= {"__init__.py", "__main__.py", "bundled/", "__pycache__/"}
    assert parts <= named, f"not drawn: {sorted(parts - named)}"
    assert {name.rstrip("/").removesuffix(".py") for name in parts} == set(re.findall(r"\w+", " ".join(layers)))
