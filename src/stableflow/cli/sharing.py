"""`stableflow vital push` and `pull`: layer sets to and from a repository on the hub."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from stableflow.cli import options as o
from stableflow.cli.output import Format, Reporter
from stableflow.errors import InputError
from stableflow.models.layer_sets import layer_folders
from stableflow.vital.presets import Preset, all_presets
from stableflow.vital.sharing import described, of_measurement, pull, push
from stableflow.vital.vitality import Vitality

Repository = Annotated[str, typer.Argument(help="USER/NAME on the hub.")]


def push_sets(
    repository: Repository,
    measured: Annotated[
        list[str], typer.Argument(help="vitality.json files, or names of models whose preset has a checkpoint.")
    ],
    name: Annotated[str, typer.Option("--name", help="What the checkpoint is called, such as its hub id.")] = "",
    source: Annotated[str, typer.Option("--source", help="How it was measured, in a line.")] = "",
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Layers of a task: style=3,4,5. May be repeated.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Share layer sets: small JSON files by checkpoint hash, and a card, in a repository of yours."""
    tasks = dict(_task(given) for given in task or [])
    sets = [dataclasses.replace(_measured(given, name, source), tasks=tasks) for given in measured]
    address = push(sets, repository, private=private)
    values = {"repository": address, "sets": [described(preset) for preset in sets]}
    lines = [f"{address}: {entry['name']} ({entry['checkpoint']}): {entry['layers']}" for entry in values["sets"]]
    Reporter(quiet=True, form=form).result(values, lines)


def pull_sets(
    repository: Repository,
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", help="Only this hash [all].")] = None,
    form: o.OutputFormat = Format.text,
) -> None:
    """Fetch layer sets into the local folder, where every command finds them by the checkpoint's hash."""
    sets = [described(preset) for preset in pull(repository, checkpoint=checkpoint)]
    if not sets:
        raise InputError(f"{repository} has no layer sets{f' of {checkpoint}' if checkpoint else ''} (layers/*.json).")
    folder = layer_folders()[0]
    lines = [f"{folder / entry['checkpoint']}.json: {entry['name']}: {entry['layers']}" for entry in sets]
    Reporter(quiet=True, form=form).result({"folder": str(folder), "sets": sets}, lines)


def _measured(given: str, name: str, source: str) -> Preset:
    if Path(given).is_file():
        return of_measurement(Vitality.load(given), name=name, source=source)
    found = [preset for preset in all_presets() if given in preset.names]
    if not found:
        raise InputError(
            f"{given!r} is neither a vitality file nor a model with a preset. Measure it: stableflow vital {given}"
        )
    return found[0]


def _task(given: str) -> tuple[str, tuple[int, ...]]:
    name, _, numbers = given.partition("=")
    parts = numbers.split(",")
    if not name.strip() or not all(part.strip().isdigit() for part in parts):
        raise InputError(f"--task is NAME=NUMBERS, such as style=3,4,5; got {given!r}.")
    return name.strip(), tuple(int(part) for part in parts)
