"""`stableflow editors` and `stableflow tasks`: the methods and their settings, and what they are good for."""

import dataclasses
import inspect
from typing import Annotated, Any

import typer

from stableflow.cli.options import OutputFormat
from stableflow.cli.output import Format, Reporter
from stableflow.editing import EDITORS, TASKS, Editor
from stableflow.editing.recipe import as_json


def editors(
    name: Annotated[str | None, typer.Argument(help="One method only.")] = None,
    form: OutputFormat = Format.text,
) -> None:
    """List the editing methods: settings with their defaults, paper, and what each is good for."""
    chosen = list(EDITORS) if name is None else [name]
    values = {known: describe(EDITORS[known]) for known in chosen}
    lines: list[str] = []
    for known, facts in values.items():
        paper = f" ({facts['paper']})" if facts["paper"] else ""
        settings = ", ".join(f"{key}={value!r}" for key, value in facts["settings"].items())
        lines += [f"{known}{paper}: {facts['good_for']}", f"    {facts['rule']}", f"    {settings}"]
    Reporter(quiet=True, form=form).result(values, lines)


def tasks(form: OutputFormat = Format.text) -> None:
    """List what --task can be asked for: `remove`, `background` and so on, and what is done about it."""
    values = {name: " ".join((inspect.getdoc(TASKS[name]) or "").split("\n\n")[0].split()) for name in TASKS}
    Reporter(quiet=True, form=form).result(values, [f"{name}: {text}" for name, text in values.items()])


def describe(editor: type[Editor]) -> dict[str, Any]:
    """Return what is known of an editor without a model."""
    defaults = {
        known.name: as_json(known.default)
        for known in dataclasses.fields(editor)
        if known.init and known.name != "model"
    }
    rule = " ".join((editor.__doc__ or "").split("\n\n")[0].split())
    return {"paper": editor.paper, "good_for": editor.good_for, "rule": rule, "settings": defaults}
