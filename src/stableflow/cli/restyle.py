"""`stableflow restyle`: a picture in the style of another."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from stableflow.cli.edit import find_source, report_edits
from stableflow.cli.grouped import grouped
from stableflow.cli.options import SHAPING, DryRun, ModelOptions, OutputOptions, SourceOptions
from stableflow.cli.plan import edit_plan
from stableflow.cli.settings import order_from
from stableflow.editing.restyling import restyle as restyled
from stableflow.errors import InputError
from stableflow.files import check_writable, refuse_to_replace

WRITTEN = ("source.png", "edit_1.png", "comparison.png")


@dataclass(frozen=True)
class StyleOptions:
    """Where the style is from."""

    title: ClassVar[str] = "Style"

    reference: Annotated[Path | None, typer.Option("--reference", help="The picture whose style it is.")] = None
    showing: Annotated[str | None, typer.Option("--showing", help="What that picture shows, style included.")] = None
    to: Annotated[str | None, typer.Option("--to", help="What the result shows [--prompt].")] = None
    strength: Annotated[float | None, typer.Option("--strength", help="How much of its style, 0 to 1 [1].")] = None


@grouped
def restyle(
    source: SourceOptions,
    style: StyleOptions,
    model: ModelOptions,
    output: OutputOptions,
    session: Annotated[
        Path | None, typer.Option("--session", help="Keep the source here, or restyle the one there.")
    ] = None,
    metadata: Annotated[bool, typer.Option(help="Put the recipe into the PNGs.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Draw a picture (--prompt, --seed, or --image) in the style of a reference picture (--reference, --showing)."""
    if style.reference is None or style.showing is None:
        raise InputError("Give the picture whose style it is with --reference, and what it shows with --showing.")
    shaping = {name: getattr(model, name) for name in SHAPING}
    asked = {"to": [style.to or source.prompt or ""], "layers": "all"}
    order = order_from(dataclasses.asdict(source) | shaping | asked)
    order.check()
    reporter = output.reporter()
    if not dry_run:
        check_writable(output.out)
        for image in (order.image, style.reference):
            if image is not None:
                refuse_to_replace(image, [output.out / name for name in WRITTEN])
    editor = order.make_editor(model.open(reporter))
    if dry_run:
        plan = edit_plan(editor, order)
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    made = find_source(editor, order, session, reporter)
    settings = {} if style.strength is None else {"strength": style.strength}
    with reporter.progress("restyling") as advance:
        result = restyled(
            editor, made, style.reference, showing=style.showing, prompt=order.to[0], callback=advance, **settings
        )
    report_edits(result, result.save(output.out, metadata=metadata), reporter)
