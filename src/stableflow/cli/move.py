"""`stableflow move`: put things of a picture elsewhere."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from stableflow.checks import check_points
from stableflow.cli.edit import find_source, report_edits
from stableflow.cli.grouped import grouped
from stableflow.cli.options import SHAPING, DryRun, ModelOptions, OutputOptions, SourceOptions
from stableflow.cli.plan import edit_plan
from stableflow.cli.settings import order_from, parse_set, where
from stableflow.editing.moves import Move
from stableflow.editing.where import check_where
from stableflow.errors import InputError
from stableflow.files import check_writable, refuse_to_replace

WRITTEN = ("source.png", "edit_1.png", "comparison.png")


@dataclass(frozen=True)
class MoveOptions:
    """What goes where; options that may be repeated belong to the --region of the same place."""

    title: ClassVar[str] = "Move"

    region: Annotated[
        list[str] | None,
        typer.Option("--region", "-r", help="The thing: word:dog, box:x,y,w,h, a mask's file; repeat it for more."),
    ] = None
    by: Annotated[list[str] | None, typer.Option("--by", help="Pixels x,y to the right and down; repeatable.")] = None
    scale: Annotated[list[float] | None, typer.Option("--scale", help="New size over old; repeatable.")] = None
    turn: Annotated[list[float] | None, typer.Option("--turn", help="Degrees, clockwise; repeatable.")] = None
    copy: Annotated[bool, typer.Option("--copy", help="Leave the things where they are as well.")] = False
    grow: Annotated[int, typer.Option("--grow", help="Pixels around the regions that go along.")] = 0
    come: Annotated[
        list[str] | None, typer.Option("--from", help="Drag the thing at this pixel x,y; several bend it.")
    ] = None
    go: Annotated[list[str] | None, typer.Option("--to", help="To this pixel x,y, one for every --from.")] = None
    hole: Annotated[
        str | None, typer.Option("--hole", help="What is behind the things: the prompt of what they leave [--prompt].")
    ] = None
    set: Annotated[
        list[str] | None, typer.Option("--set", help="Another setting, as key=value: `stableflow editors move`.")
    ] = None

    def moves(self) -> list[Move]:
        """Return what is asked for.

        Raises:
            InputError: There are not as many values as regions.
        """
        regions = [where(text) or "" for text in self.region or []]
        if not regions:
            raise InputError("--region is missing: say what to move, such as --region word:dog.")
        for region in regions:
            check_where(region)
        if self.come or self.go:
            return [self._drag(regions)]
        count = len(regions)
        shifts = [_pixel(text, "--by") for text in _each(self.by, "0,0", "--by", count)]
        scales, turns = _each(self.scale, 1.0, "--scale", count), _each(self.turn, 0.0, "--turn", count)
        return [Move(*values, copy=self.copy, grow=self.grow) for values in zip(regions, *zip(*shifts), scales, turns)]

    def _drag(self, regions: list[str]) -> Move:
        come, go = self.come or [], self.go or []
        if len(come) != len(go) or len(regions) != 1 or self.by or self.scale or self.turn:
            raise InputError(
                f"A drag takes one --region and as many --from as --to, without --by, --scale and --turn; got "
                f"{len(regions)} region(s), {len(come)} --from and {len(go)} --to."
            )
        pairs = [(_pixel(a, "--from"), _pixel(b, "--to")) for a, b in zip(come, go)]
        return Move(regions[0], drag=pairs, copy=self.copy, grow=self.grow)


@grouped
def move(
    source: SourceOptions,
    wish: MoveOptions,
    model: ModelOptions,
    output: OutputOptions,
    session: Annotated[
        Path | None, typer.Option("--session", help="Keep the source here, or move things in the one there.")
    ] = None,
    metadata: Annotated[bool, typer.Option(help="Put the recipe into the PNGs.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Move, resize, turn, copy or drag things of a drawn picture (--prompt) or a real one (--image, --prompt)."""
    moves = wish.moves()
    shaping = {name: getattr(model, name) for name in SHAPING}
    asked: dict[str, Any] = {"editor": "move", "to": [wish.hole or source.prompt or ""]}
    settings = {"moves": [move.as_json() for move in moves]} | (parse_set(wish.set) or {})
    order = order_from(dataclasses.asdict(source) | shaping | asked | {"set": settings})
    order.check()
    reporter = output.reporter()
    if not dry_run:
        check_writable(output.out)
        if order.image is not None:
            refuse_to_replace(
                order.image, [output.out / name for name in ("source.png", "edit_1.png", "comparison.png")]
            )
    editor = order.make_editor(model.open(reporter))
    if dry_run:
        plan = edit_plan(editor, order)
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    made = find_source(editor, order, session, reporter)
    with reporter.progress("moving") as advance:
        result = order.edit(editor, made, advance)
    report_edits(result, result.save(output.out, metadata=metadata, original=order.image), reporter)


def _each(given: list[Any] | None, usual: Any, option: str, count: int) -> list[Any]:
    """One value for every region."""
    values = given or [usual] * count
    if len(values) != count:
        raise InputError(f"{option} is given {len(values)} times for {count} --region(s); give one each.")
    return values


def _pixel(text: str, option: str) -> tuple[float, float]:
    try:
        numbers = [float(part) for part in text.split(",")]
        return check_points(option, [numbers])[0]
    except (ValueError, InputError):
        raise InputError(f"{option} takes two numbers of pixels, such as 16,0, got {text!r}.") from None
