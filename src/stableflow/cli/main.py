"""The `stableflow` command."""

import io
import os
import sys
import warnings
from typing import TextIO

import torch
import typer
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from stableflow.cli import app as web
from stableflow.cli import (
    batch,
    bench,
    doctor,
    edit,
    editors,
    invert,
    maps,
    models,
    move,
    restyle,
    scenes,
    serve,
    session,
    train,
    vital,
)
from stableflow.cli.output import visible
from stableflow.errors import InterventionError, NumericsError, StableFlowError
from stableflow.models.prompts import PromptWarning

FAILED, USAGE, INTERRUPTED = 1, 2, 130
VERBOSE = {"-v", "--verbose"}  # the libraries speak from the start, before options are parsed
DEBUG = "STABLEFLOW_DEBUG"  # set to see where an unexpected error comes from
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
app.command("batch")(batch.batch)
app.command("move")(move.move)
app.command("restyle")(restyle.restyle)
app.command("invert")(invert.invert)
app.add_typer(session.app, name="session")
app.command("editors")(editors.editors)
app.command("tasks")(editors.tasks)
app.add_typer(vital.app, name="vital")
app.command("maps")(maps.maps)
app.command("bench")(bench.bench)
app.command("report")(bench.report)
app.command("app")(web.app)
app.command("serve")(serve.serve)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.command("scenes")(scenes.scenes)
app.command("train")(train.train)


def run() -> None:
    """Run the command line; every error we know becomes one message and an exit code."""
    for library in (transformers_logging, diffusers_logging):
        if VERBOSE & set(sys.argv[1:]):
            library.set_verbosity_info()
            library.enable_progress_bar()
        else:
            library.set_verbosity_error()
            library.disable_progress_bar()
    if not VERBOSE & set(sys.argv[1:]):
        warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few characters is no reason to fail
    try:
        app()
        sys.stdout.flush()
    except StableFlowError as error:
        _fail(str(error), FAILED if isinstance(error, (NumericsError, InterventionError)) else USAGE)
    except torch.OutOfMemoryError:
        _fail(OUT_OF_MEMORY, FAILED)
    except MemoryError:
        _fail("The memory of this machine is full. Use a smaller --height and --width, or fewer --to prompts.", FAILED)
    except KeyboardInterrupt:
        _fail("Interrupted. What was finished is kept.", INTERRUPTED)
    except BrokenPipeError:  # what reads the output, such as head, has left
        sys.stdout = None
        sys.exit(FAILED)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _fail(f"{type(error).__name__}: {_line(error)} This is a fault of stableflow: please report it with the output "
              f"of the same command under {DEBUG}=1.", FAILED)  # fmt: skip


def _fail(message: str, code: int) -> None:
    print(f"error: {visible(message)}", file=sys.stderr)
    sys.exit(code)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """Our own warnings in one line; other libraries' are not for the user of a command."""
    if issubclass(category, PromptWarning) or (issubclass(category, UserWarning) and "stableflow" in filename):
        print(f"warning: {visible(str(message))}", file=sys.stderr)
