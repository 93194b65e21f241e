"""What the documentation shows runs, on the bundled model."""

import difflib
import functools
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import diffusers
import nbformat
import pytest
import typer
from nbclient import NotebookClient
from tiny_flux import NUM_LAYERS, SIZE, tiny_flux_pipeline

import stableflow as sf
from stableflow.cli.main import app
from stableflow.editing import EDITORS
from stableflow.vital.presets import Preset
from stableflow.vital.sharing import as_file

ROOT = Path(__file__).parents[1]
PAGES = sorted([Path("README.md"), *(page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md"))])
BLOCK = r"```{language}\n(.*?)```"
FLUX = "black-forest-labs/FLUX.1-dev"


def blocks(page, language):
    return re.findall(BLOCK.format(language=language), (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tiny_flux(tmp_path_factory):
    """A random FLUX in diffusers' layout, and its vital layers in a local folder: what stands in for FLUX.1-dev."""
    pipeline, folder = tiny_flux_pipeline(), tmp_path_factory.mktemp("flux")
    pipeline.save_pretrained(folder / "FLUX.1-dev")
    digest = sf.wrap(pipeline).checkpoint_hash()
    layers = Preset((0, 3), NUM_LAYERS, ("tiny random FLUX",), digest, "for a test")
    (folder / "layers").mkdir()
    (folder / "layers" / f"{digest}.json").write_text(as_file(layers))
    return folder


@pytest.fixture
def with_flux(tiny_flux, monkeypatch):
    """Blocks that name FLUX.1-dev get a tiny random one, in float32, at its own small size and few steps."""
    for pipeline in (diffusers.FluxPipeline, diffusers.FluxImg2ImgPipeline):
        monkeypatch.setattr(pipeline, "__init__", _small(pipeline.__init__))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "enable_model_cpu_offload", lambda pipeline: None)
    monkeypatch.setenv("STABLEFLOW_LAYERS", str(tiny_flux / "layers"))

    def prepare(block):
        return block.replace(FLUX, str(tiny_flux / "FLUX.1-dev")).replace("torch.bfloat16", "torch.float32")

    return prepare


def _small(init):
    @functools.wraps(init)
    def made(pipeline, *args, **kwargs):
        init(pipeline, *args, **kwargs)
        pipeline.default_sample_size = SIZE // 2

    return made


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=str)
def test_python_blocks_run(page, workplace, with_flux):
    for block in blocks(page, "python"):
        exec(compile(with_flux(block), str(page), "exec"), {})


def test_a_diffusers_script_changes_in_three_lines():
    before, after = (block.splitlines() for block in blocks("docs/diffusers.md", "python")[:2])
    changed = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    assert "FluxImg2ImgPipeline" in "".join(before) and 1 <= len(changed) <= 3


def commands(page):
    """Every command of this package that a page shows, continued lines joined, comments off."""
    text = "\n".join([*blocks(page, "sh"), *re.findall(r"^    (stableflow .*)$", (ROOT / page).read_text(), re.M)])
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] in ("stableflow", "make", "python"):
            yield words


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=str)
def test_commands_are_ones_that_there_are(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *arguments in commands(page):
        if program == "stableflow":
            parsed(arguments)
        elif program == "make":
            assert set(arguments) <= set(targets), f"make {arguments}"
        elif arguments[0].endswith(".py"):
            assert (ROOT / arguments[0]).is_file(), arguments[0]


def parsed(arguments):
    """Parse a command line as the command itself does; raises where an option is not there."""
    command, context = typer.main.get_command(app), None
    while True:
        context = command.make_context("stableflow", list(arguments), parent=context)
        if not hasattr(command, "commands"):
            return
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def test_the_notebook_runs(workplace):
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "first_edit.ipynb", as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(workplace)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in shown) == 4


def test_files_that_the_pages_point_to_exist():
    for page in ROOT.glob("**/*.md"):
        if {".venv", "out"} & set(page.relative_to(ROOT).parts):
            continue
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_editor_has_its_row():
    page = (ROOT / "docs/editors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z-]+) \| (?:\[|none \|)", page, re.MULTILINE)
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
