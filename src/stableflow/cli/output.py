"""What the command line prints: for people on the terminal, as JSON for programs."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stableflow.flow.integrate import StepRecord

DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"


class Format(StrEnum):
    text = "text"
    json = "json"


def visible(text: str) -> str:
    """Return text for a terminal: control characters and escapes are shown, never obeyed; lines stay lines.

    Prompts, names of files and messages of libraries can be anybody's. What turns the direction of writing is shown
    too, and so is half of a character, which no terminal takes.
    """
    return "".join(
        character if character in "\n\t" or not _acts(character) else _escaped(character) for character in str(text)
    )


def without_half_characters(text: str) -> str:
    """Return text that can be encoded."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _acts(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character in DIRECTIONS)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class Reporter:
    """Talks to the user on stderr, so that stdout holds the result alone."""

    def __init__(self, *, quiet: bool, form: Format):
        self._quiet = quiet or form is Format.json
        self._form = form
        self._errors = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        if not self._quiet:
            self._errors.print(visible(text), markup=False, soft_wrap=True)

    def result(self, values: dict[str, Any], lines: list[str]) -> None:
        """Print the outcome: the values as JSON, or the lines."""
        if self._form is Format.json:
            print(without_half_characters(json.dumps(values, ensure_ascii=False, indent=2)))
        else:
            print("\n".join(visible(line) for line in lines))

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[StepRecord], None]]:
        """Show a bar over the steps of a run; yields the callback that moves it."""
        with self.counter(label) as told:
            yield lambda record: told(record.index + 1, record.num_steps)

    @contextmanager
    def counter(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar with the time left; yields what is told how much is done, of how much."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._errors, disable=self._quiet) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, total=total, completed=done)
