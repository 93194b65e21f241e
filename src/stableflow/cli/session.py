"""`stableflow session`: edit the same picture turn after turn, go back, branch."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from stableflow.checks import check_count
from stableflow.cli import options as o
from stableflow.cli.grouped import grouped
from stableflow.cli.output import Format, Reporter, visible
from stableflow.cli.settings import order_from, parse_set, where
from stableflow.editing.least import AUTO
from stableflow.editing.turn_files import Tree, read_tree, turn_file, write_tree
from stableflow.editing.turns import Session
from stableflow.errors import InputError
from stableflow.files import check_writable, only_process

app = typer.Typer(
    help="Turns over one source: `session edit` takes one, `session undo` goes back, `session show` lists them. "
    "`stableflow invert` or `stableflow edit --session` makes the source.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(help="Where the source and its turns are kept.")]


@app.command()
@grouped
def edit(
    folder: Folder,
    wish: o.EditOptions,
    model: o.ModelOptions,
    swap: Annotated[
        list[str] | None, typer.Option("--swap", help="Words so far and new ones, as red=black; repeat it for more.")
    ] = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="Refer to the turn before from here on, not to the source.")
    ] = False,
    quiet: o.Quiet = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Take one more turn: --swap words of the prompt so far, or give the whole prompt with --to."""
    reporter, change = Reporter(quiet=quiet, form=form), _change(wish.to, swap)
    if wish.together:
        raise InputError("A turn is one edit; --together has nothing to lay over one another.")
    order = order_from({"prompt": "-", **_said(wish), "to": ["-"]})
    check_writable(folder)
    with only_process(folder / ".session.lock", "an edit of this session"):
        read_tree(folder)  # refused before a model is loaded
        editor = order.make_editor(model.open(reporter))
        session = Session.load(folder, editor)
        if rebase:
            session.rebase()
        with reporter.progress("editing") as advance:
            auto = {"strength": AUTO} if AUTO in order.settings().values() else {}
            session.edit(change, region=order.region, exact=order.exact, callback=advance, **auto)
        session.save(folder)
    picture = turn_file(folder, session.at).with_suffix(".png")
    values = {"turn": session.at, "prompt": session.prompt, "file": str(picture)}
    reporter.result(values, [f"turn {session.at}: {visible(session.prompt)}", str(picture)])


@app.command()
def show(folder: Folder, form: o.OutputFormat = Format.text) -> None:
    """List the turns, each under the one it goes on from; the current one is marked."""
    tree = read_tree(folder)
    Reporter(quiet=True, form=form).result(tree.model_dump(), _lines(tree, 0, 0))


@app.command()
def undo(
    folder: Folder,
    turns: Annotated[int, typer.Option("--turns", "-n", help="How many to go back.")] = 1,
    form: o.OutputFormat = Format.text,
) -> None:
    """Go back; what is undone stays, and the next edit begins a branch."""
    tree = read_tree(folder)
    before, at = {turn.number: turn.before for turn in tree.turns}, tree.at
    for _ in range(check_count("--turns", turns, 1, 100_000)):
        if at == 0:
            raise InputError(
                f"Fewer than {turns} turns lead to the current one; see `stableflow session show {folder}`."
            )
        at = before[at]
    _move(folder, at, form)


@app.command()
def go(
    folder: Folder,
    turn: Annotated[int, typer.Argument(help="Its number; 0 is the source.")],
    form: o.OutputFormat = Format.text,
) -> None:
    """Make any turn the current one, of any branch."""
    numbers = [0, *(place.number for place in read_tree(folder).turns)]
    if turn not in numbers:
        raise InputError(f"There is no turn {turn}; there are {', '.join(map(str, numbers))}.")
    _move(folder, turn, form)


def _move(folder: Path, at: int, form: Format) -> None:
    with only_process(folder / ".session.lock", "an edit of this session"):
        tree = read_tree(folder).model_copy(update={"at": at})
        write_tree(folder, tree)
    Reporter(quiet=True, form=form).result(tree.model_dump(), _lines(tree, 0, 0))


def _lines(tree: Tree, number: int, depth: int) -> list[str]:
    """The turn and all that go on from it; a straight row of turns stays at one depth."""
    words = "source" if number == 0 else next(turn.prompt for turn in tree.turns if turn.number == number)
    based = " (base)" if number and number in tree.bases else ""
    lines = [f"{'*' if number == tree.at else ' '} {'  ' * depth}{number} {words}{based}"]
    after = [turn.number for turn in tree.turns if turn.before == number]
    for turn in after:
        lines += _lines(tree, turn, depth + (len(after) > 1))
    return lines


def _change(to: list[str] | None, swap: list[str] | None) -> str | dict[str, str]:
    if (to is None) == (swap is None) or (to is not None and len(to) != 1):
        raise InputError("A turn takes --swap red=black (repeat it for more), or one --to with the whole prompt.")
    if to is not None:
        return to[0]
    pairs = [pair.partition("=") for pair in swap or []]
    wrong = [old for old, equals, _ in pairs if not equals or not old.strip()]
    if wrong:
        raise InputError(f"--swap takes words and new ones, as --swap red=black, got {wrong[0]!r}.")
    return {old: new for old, _, new in pairs}


def _said(wish: o.EditOptions) -> dict[str, Any]:
    values = dataclasses.asdict(wish)
    values |= {"set": parse_set(wish.set), "region": where(values.pop("mask"))}
    return {name: value for name, value in values.items() if value is not None}
