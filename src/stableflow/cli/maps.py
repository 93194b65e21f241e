"""`stableflow maps`: what points of a picture attend to while it is edited."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from stableflow.cli.edit import make_source
from stableflow.cli.grouped import grouped
from stableflow.cli.options import SHAPING, ModelOptions, OutputOptions, SourceOptions
from stableflow.cli.output import Reporter
from stableflow.cli.settings import order_from
from stableflow.editing.attention import AttentionResult, attention
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.errors import InputError, unknown_name
from stableflow.files import check_writable
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.reports.attention import attention_figure
from stableflow.reports.figures import check_figures, save_figure

FIGURES = ("png", "svg")


@grouped
def maps(
    source: SourceOptions,
    model: ModelOptions,
    output: OutputOptions,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", help="Pixel x,y of the source, from its top left; repeat it for more."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", "-t", help="The edited prompt.")] = None,
    edit_guidance: Annotated[
        float | None, typer.Option("--edit-guidance", help="Of the edit [the source's, with --image 3].")
    ] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="vital, all, or numbers [vital].")] = None,
    weight: Annotated[float | None, typer.Option("--weight", help="Of the injection, 0 to 1 [1].")] = None,
    window: Annotated[str | None, typer.Option("--window", help="Inject at these flow times only, as 0.4,1.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Layers beside the injected ones [every other].")
    ] = None,
    figure: Annotated[str, typer.Option("--figure", help="png or svg.")] = "png",
) -> None:
    """Show what points attend to during an edit, in the layers with injection and in the others: image and words."""
    asked = {"to": [to] if to else None, "layers": layers, "weight": weight, "window": window}
    shaping = {name: getattr(model, name) for name in SHAPING}
    order = order_from(dataclasses.asdict(source) | shaping | asked)
    points = [_numbers(text, "--point", count=2) for text in point or []]
    if not points:
        raise InputError("--point is missing: give at least one pixel of the source, such as --point 32,40.")
    if figure not in FIGURES:
        raise unknown_name("figure format", figure, FIGURES)
    order.check()
    reporter, out = output.reporter(), output.out
    check_figures()
    check_writable(out)
    editor = StableFlow(model.open(reporter), **order.settings())
    groups = layer_groups(editor, None if against is None else _numbers(against, "--against"))
    made = make_source(editor, order, reporter)
    with reporter.progress("editing") as advance:
        result = attention(
            editor,
            made,
            order.to,
            points=[(x, y) for x, y in points],
            inject_window=order.window or WHOLE_FLOW,
            weight=1.0 if weight is None else weight,
            guidance_scale=edit_guidance,
            callback=advance,
        )
    files = [save_figure(attention_figure(result, groups), out / f"attention.{figure}"), *result.save(out)]
    _report(result, groups, files, reporter)


def layer_groups(editor: StableFlow, against: list[int] | None = None) -> dict[str, list[int]]:
    """Return the layers with injection and those to set beside them, by title."""
    every = range(len(editor.model.layers))
    others = [layer for layer in every if layer not in editor.chosen_layers] if against is None else against
    wrong = [layer for layer in others if layer not in every]
    if wrong or not editor.chosen_layers or not others:
        raise InputError(
            f"Both --layers and --against need layers out of 0..{len(every) - 1} to compare; got "
            f"{list(editor.chosen_layers)} and {others}."
        )
    named = "others" if against is None else ", ".join(map(str, others))
    return {
        f"injected: {', '.join(map(str, editor.chosen_layers))}": list(editor.chosen_layers),
        f"not injected: {named}": others,
    }


def _numbers(text: str, option: str, count: int | None = None) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
        if any(abs(number) > 10**9 for number in numbers):
            numbers = []
    except ValueError:
        numbers = []
    if not numbers or count not in (None, len(numbers)):
        expected = "two whole numbers, such as 32,40" if count == 2 else "layer numbers, such as 4,5,6"
        raise InputError(f"{option} takes {expected}, got {text!r}.")
    return numbers


def _report(result: AttentionResult, groups: dict[str, list[int]], files: list[Path], reporter: Reporter) -> None:
    means = {title: result.edits[0].mean(layers) for title, layers in groups.items()}
    table = [
        {
            "point": list(point),
            "layers": title,
            "image": round(float(mean.image_sum[row]), 4),
            "words": {
                f"{i}: {word}": round(float(mean.text[row, i]), 4) for i, word in enumerate(result.edits[0].words)
            },
        }
        for row, point in enumerate(result.points)
        for title, mean in means.items()
    ]
    lines = [f"point {row['point']}, {row['layers']}: image {row['image']:.2f}, {_strongest(row)}" for row in table]
    reporter.result({"files": [str(file) for file in files], "attention": table}, [*map(str, files), *lines])


def _strongest(row: dict) -> str:
    """The three words with the most attention."""
    words = sorted(row["words"].items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name.split(': ')[1]} {value:.3f}" for name, value in words)
