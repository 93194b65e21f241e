"""`stableflow edit`: draw or take a picture, and edit it."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from stableflow.cli.grouped import grouped
from stableflow.cli.options import SHAPING, EditOptions, ModelOptions, OutputOptions, SourceOptions
from stableflow.cli.output import Reporter, visible
from stableflow.cli.plan import card_plans, edit_plan
from stableflow.cli.settings import from_recipe, order_from, parse_set, read_run_file, where
from stableflow.cli.usual import with_usual
from stableflow.editing import Editor
from stableflow.editing.computing import told
from stableflow.editing.leaning import judged, not_made
from stableflow.editing.recipe import require_repeated
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.files import check_writable, refuse_to_replace
from stableflow.flow.integrate import StepRecord
from stableflow.images import read_recipe, save_png, to_pil
from stableflow.models.bundled import BUNDLED
from stableflow.models.known import known_by
from stableflow.order import Order


@grouped
def edit(
    source: SourceOptions,
    wish: EditOptions,
    model: ModelOptions,
    output: OutputOptions,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML run file; options win over it.")] = None,
    from_image: Annotated[Path | None, typer.Option("--from-image", help="Repeat the run behind this PNG.")] = None,
    trust_recipe: Annotated[
        bool, typer.Option("--trust-recipe", help="Load the model that the PNG's recipe names, without -m.")
    ] = False,
    session: Annotated[
        Path | None, typer.Option("--session", help="Keep the source here, or edit the one there.")
    ] = None,
    preview: Annotated[int, typer.Option("--preview", help="Write preview.png every so many steps; 0 never.")] = 0,
    check: Annotated[
        bool, typer.Option(help="Warn of edits that were not made, as the model itself sees it; one pass.")
    ] = True,
    metadata: Annotated[bool, typer.Option(help="Put the recipe into the PNGs.")] = True,
    max_outside: Annotated[
        float | None,
        typer.Option("--max-outside", help="Exit with 3 if an edit changes more outside its mask, 0 to 1."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs.")] = False,
) -> None:
    """Edit a drawn picture (--prompt, --seed) or a real one (--image, --prompt): one result for every --to."""
    given = _given(source, wish, model)
    own = {} if config is None else read_run_file(config)
    recipe = {} if from_image is None else _from_image(from_image, own | _said(given), trust_recipe)
    order = order_from(recipe, own, given)
    order.check()
    order, filled = with_usual(order)
    reporter = output.reporter()
    if filled:
        reporter.say(filled)
    if not dry_run:
        check_writable(output.out)
        if order.image is not None:
            refuse_to_replace(order.image, _written(output.out, len(order.to)))
    if dry_run and known_by(order.model) is not None:
        plan = card_plans(order, model.memory)
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    if model.memory is not None:
        model = model.fitted(order.model)
        order = order.model_copy(update={"quantise": model.quantise, "quantise_text": model.quantise_text})
    loaded = model.open(reporter, **{name: getattr(order, name) for name in SHAPING})
    editor = order.make_editor(loaded)
    if dry_run:
        plan = edit_plan(editor, order)
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    made = find_source(editor, order, session, reporter)
    if from_image is not None and not _changes_source(given):
        require_repeated(order.expected, made)
    with reporter.progress("editing") as advance:
        result = order.edit(editor, made, _previewing(editor, output.out, preview, advance))
    if output.verbose and "computed" in result.recipe:
        reporter.say(told(result.recipe["computed"]))
    original = order.image if result.region is not None else None
    files = result.save(output.out, metadata=metadata, original=original)
    if check and not order.together and "auto" not in result.recipe:
        for warning in not_made(result.prompts, judged(editor, result)):
            warnings.warn(warning, stacklevel=1)
    report_edits(result, files, reporter)
    _gate(result, max_outside)


def make_source(editor: Editor, order: Order, reporter: Reporter) -> Source:
    """Draw the source, or invert the picture."""
    with reporter.progress("drawing the source" if order.image is None else "inverting the picture") as advance:
        return order.make_source(editor, advance)


def _given(source: SourceOptions, wish: EditOptions, model: ModelOptions) -> dict[str, Any]:
    """What the options say, by the names of an order."""
    values = dataclasses.asdict(source) | dataclasses.asdict(wish) | {name: getattr(model, name) for name in SHAPING}
    return values | {"set": parse_set(wish.set), "region": where(values.pop("mask"))}


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _from_image(path: Path, own: dict[str, Any], trusted: bool) -> dict[str, Any]:
    """The order in a PNG, which chooses no model, adapter or file by itself; `own` is what the user says."""
    values = from_recipe(read_recipe(path))
    asked, region = values["model"], str(values["region"])
    refused_anyway = values["image_digest"] is not None and "image" not in own
    if "model" not in own and asked not in BUNDLED and not trusted and not refused_anyway:
        raise InputError(
            f"The recipe in {path} asks for the model {visible(asked)!r}. Give it with -m, or load what the recipe "
            "names with --trust-recipe."
        )
    if "region" not in own and region.removeprefix("~").startswith("mask:"):
        raise InputError(f"The recipe in {path} names a file as its region, {visible(region)!r}. Give it with --mask.")
    for move in values["set"].get("moves") or ():
        where = str(move.get("region") if isinstance(move, dict) else move)
        if where.removeprefix("~").startswith("mask:"):
            raise InputError(f"The recipe in {path} names a file as a thing to move, {visible(where)!r}; move it anew.")
    return values


TOO_MUCH = 3
"""Exit code of an edit that changes more outside its region than it may; its files are written all the same."""

SOURCE_SETTINGS = ("prompt", "seed", "steps", "guidance", "height", "width", "solver", "inversion", "nudge", "preset")


def _changes_source(given: dict[str, Any]) -> bool:
    """Whether options ask for another source than the repeated run's."""
    names = (*SOURCE_SETTINGS, "dtype", "max_sequence_length", "quantise", "lora", "negative")
    return any(given[name] is not None for name in names)


def find_source(editor: Editor, order: Order, session: Path | None, reporter: Reporter) -> Source:
    """Return the saved session if it was made with the settings given, or else a new one, saved if asked."""
    if session is None or not (session / "source.json").exists():
        source = make_source(editor, order, reporter)
        if session is not None:
            source.save(session)
        return source
    source = Source.load(session, device=editor.model.device)
    order.require_session(editor, source, where=str(session))
    return source


def _written(out: Path, edits: int) -> list[Path]:
    names = ["source.png", "comparison.png", "preview.png", *(f"edit_{i}.png" for i in range(1, edits + 1))]
    return [out / name for name in names]


def _previewing(editor: Editor, out: Path, every: int, advance: Callable[[StepRecord], None]) -> Any:
    def callback(record: StepRecord) -> None:
        advance(record)
        if every and (record.index + 1) % every == 0:
            save_png(out / "preview.png", to_pil(editor.model.decode_latents(record.estimate()[-1:])[0]))

    return callback


def _gate(result: EditResult, most: float | None) -> None:
    """Leave with a code of its own where an edit has changed more outside its region than it may."""
    changed = [value for value in result.outside_change if most is not None and not value <= most]
    if changed:
        typer.echo(f"error: outside the mask {max(changed):.4f} has changed, and --max-outside is {most:g}.", err=True)
        raise typer.Exit(TOO_MUCH)


def report_edits(result: EditResult, files: list[Path], reporter: Reporter) -> None:
    """Say what was written where, and from what."""
    lines = [f"{file}: {visible(prompt)}" for file, prompt in zip(files[1:], result.prompts)]
    reporter.result(
        {"files": [str(file) for file in files], "recipe": result.recipe},
        [
            f"{files[0]}: {visible(result.source.fingerprint.prompt)} (source)",
            *lines,
            f"{files[-2]}: all side by side",
        ],
    )
