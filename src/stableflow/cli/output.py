"""What the command line prints: for people on the terminal, as JSON for programs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stableflow.flow.integrate import StepRecord


class Format(StrEnum):
    text = "text"
    json = "json"


def shown(text: str) -> str:
    """Return text of strangers for a terminal: control characters and escapes are shown, not obeyed."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Reporter:
    """Talks to the user on stderr, so that stdout holds the result alone."""

    def __init__(self, *, quiet: bool, form: Format):
        self._quiet = quiet or form is Format.json
        self._form = form
        self._errors = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        if not self._quiet:
            self._errors.print(text, markup=False, soft_wrap=True)

    def result(self, values: dict[str, Any], lines: list[str]) -> None:
        """Print the outcome: the values as JSON, or the lines."""
        print(json.dumps(values, ensure_ascii=False, indent=2) if self._form is Format.json else "\n".join(lines))

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
