"""The prompts that vitality is measured on."""

from importlib import resources
from pathlib import Path

from stableflow.checks import check_path
from stableflow.errors import InputError, LoadError, unknown_name
from stableflow.reading import read_text

PROMPT_SETS = ("diverse", "scenes")
"""Shipped sets of 64: over people, animals, objects, scenes, text and styles; and in the bundled model's words."""

EDITS = "edits"
"""The shipped set of edits, as "source -> edited": see `stableflow vital --by injection`."""

LARGEST_FILE = 1_000_000  # bytes


def prompt_set(name: str) -> tuple[str, ...]:
    """Return a shipped set."""
    if name not in (*PROMPT_SETS, EDITS):
        raise unknown_name("prompt set", name, PROMPT_SETS)
    return _lines((resources.files("stableflow.vital") / "prompts" / f"{name}.txt").read_text(encoding="utf-8"))


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """Read a text file of one prompt a line; empty lines and lines that begin with # are passed over.

    Raises:
        InputError: The file is missing, not text, too large or has no prompt in it.
    """
    path = check_path("prompts", path)
    if not path.is_file():
        raise InputError(f"There is no prompt file {path}. Give a text file with one prompt a line.")
    try:
        prompts = _lines(read_text(path, most_bytes=LARGEST_FILE))
    except LoadError as error:
        raise InputError(f"{error} Give a text file with one prompt a line.") from error
    if not prompts:
        raise InputError(f"{path} holds no prompt. Write one a line; lines that begin with # are passed over.")
    return prompts


def _lines(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
