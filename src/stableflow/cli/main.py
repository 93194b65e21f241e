"""The `stableflow` command."""

import sys
import warnings
from typing import TextIO

import torch
import typer
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from stableflow.cli import bench, doctor, edit, editors, invert, maps, scenes, train, vital
from stableflow.errors import InterventionError, NumericsError, StableFlowError

FAILED, USAGE = 1, 2
OUT_OF_MEMORY = (
    "The accelerator's memory is full. In this order: fewer --to prompts at a time; --keep cpu; --offload model; "
    "--offload group; a smaller --height and --width. Seed and size are never changed for you."
)

app = typer.Typer(
    name="stableflow",
    help="Training-free image editing with diffusion transformers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command("edit")(edit.edit)
app.command("invert")(invert.invert)
app.command("editors")(editors.editors)
app.add_typer(vital.app, name="vital")
app.command("maps")(maps.maps)
app.command("bench")(bench.bench)
app.command("report")(bench.report)
app.command("doctor")(doctor.doctor)
app.command("scenes")(scenes.scenes)
app.command("train")(train.train)


def run() -> None:
    """Run the command line; every error we know becomes one message and an exit code."""
    for library in (transformers_logging, diffusers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    warnings.showwarning = _show_warning
    try:
        app()
    except StableFlowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED if isinstance(error, (NumericsError, InterventionError)) else USAGE)
    except torch.OutOfMemoryError:
        print(f"error: {OUT_OF_MEMORY}", file=sys.stderr)
        sys.exit(FAILED)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """Our own warnings in one line; other libraries' are not for the user of a command."""
    if issubclass(category, UserWarning) and "stableflow" in filename:
        print(f"warning: {message}", file=sys.stderr)
