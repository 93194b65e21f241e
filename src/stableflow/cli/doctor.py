"""`stableflow doctor`: does everything that is needed work here?"""

import importlib
import importlib.metadata
import platform
from typing import Annotated

import torch
import typer

from stableflow.cli import options as o
from stableflow.cli.output import Format, Reporter
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.errors import StableFlowError
from stableflow.models.load import bundled_path, load

PACKAGES = ("stableflow", "torch", "diffusers", "transformers", "accelerate", "safetensors", "pillow")
EXTRAS = {
    "peft": "lora",
    "gguf": "gguf",
    "torchao": "quantise",
    "matplotlib": "bench",
    "jinja2": "bench",
    "ray": "ray",
}


def doctor(
    model: Annotated[str, typer.Option("--model", "-m", help="Also try to load this model.")] = "tiny",
    offline: o.Offline = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Check the installation, the hardware and a model; exit code 1 if something that is needed fails."""
    found = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
    for package, extra in EXTRAS.items():
        found[package] = _import(package) or f"not installed: pip install 'stableflow[{extra}]'"
    found["torchvision"] = _import("torchvision") or "not installed (not needed)"
    found["device"] = _device()
    problems = {}
    for name, check in {"bundled model": _draw_with_bundled, "model": lambda: _load(model, offline)}.items():
        try:
            found[name] = check()
        except StableFlowError as error:
            problems[name] = str(error)
        except Exception as error:  # what the doctor looks for
            problems[name] = f"{type(error).__name__}: {error}"
    lines = [f"{name}: {value}" for name, value in found.items()]
    Reporter(quiet=True, form=form).result(
        {**found, "problems": problems}, lines + [f"PROBLEM {name}: {text}" for name, text in problems.items()]
    )
    if problems:
        raise typer.Exit(1)


def _import(package: str) -> str | None:
    """Really import it: a package can be installed and broken."""
    try:
        return str(getattr(importlib.import_module(package), "__version__", "installed"))
    except ImportError:
        return None
    except Exception as error:  # a broken build raises anything
        return f"broken: {type(error).__name__}: {error}"


def _device() -> str:
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return "mps" if torch.backends.mps.is_available() else f"cpu, {torch.get_num_threads()} threads"


def _draw_with_bundled() -> str:
    editor = StableFlow(load(bundled_path("tiny"), device="cpu"), layers=[0])
    source = editor.generate("a dog", seed=0, num_steps=1)
    editor.edit(source, "a cat")
    return "loads and edits"


def _load(name: str, offline: bool) -> str:
    model = load(name, offline=offline)
    return f"{name}: {len(model.layers)} layers, {model.dtype}, checkpoint {model.checkpoint_hash()}"
