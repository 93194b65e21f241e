"""Options in groups: the same on every verb, taken apart for typer and put together for the function."""

import inspect
from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer
from typer.testing import CliRunner

from stableflow.cli.grouped import grouped


@dataclass(frozen=True)
class Size:
    title: ClassVar[str] = "Size of it"

    height: Annotated[int, typer.Option("--height", "-h", help="Rows.")] = 3
    width: Annotated[int | None, typer.Option("--width")] = None

    def area(self) -> int:
        return self.height * (self.width or 1)


def made():
    app, seen = typer.Typer(), []

    @app.command()
    @grouped
    def draw(size: Size, name: Annotated[str, typer.Option("--name")] = "x", twice: bool = False) -> None:
        """Draw it."""
        seen.append((size, name, twice))

    return app, draw, seen


def test_options_become_a_dataclass():
    app, _, seen = made()
    assert CliRunner().invoke(app, ["-h", "4", "--width", "5", "--name", "y", "--twice"]).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 0
    assert seen == [(Size(4, 5), "y", True), (Size(), "x", False)] and seen[0][0].area() == 20


def test_help_shows_the_group_once():
    shown = CliRunner().invoke(made()[0], ["--help"]).output
    assert shown.count("Size of it") == 1 and "Rows." in shown and "Draw it." in shown


def test_a_wrong_value_is_named():
    result = CliRunner().invoke(made()[0], ["--height", "many"])
    assert result.exit_code == 2 and "--height" in result.output


def test_the_signature_is_what_typer_reads():
    names = list(inspect.signature(made()[1]).parameters)
    assert names == ["height", "width", "name", "twice"]
    kept = Size.__annotations__["height"].__metadata__[0]
    assert kept.rich_help_panel is None, "one group's options are not changed by being shown under its title"
