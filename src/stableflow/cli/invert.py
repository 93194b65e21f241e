"""`stableflow invert`: turn a real picture into a session that can be edited again and again."""

import dataclasses
from typing import Annotated

import typer

from stableflow.cli.edit import make_source
from stableflow.cli.grouped import grouped
from stableflow.cli.options import SHAPING, ModelOptions, OutputOptions, SourceOptions
from stableflow.cli.settings import order_from
from stableflow.errors import InputError
from stableflow.files import check_writable, refuse_to_replace
from stableflow.images import save_png, to_pil


@grouped
def invert(
    source: SourceOptions,
    model: ModelOptions,
    output: OutputOptions,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Whose keys and values to keep: vital, all, or numbers [vital].")
    ] = None,
) -> None:
    """Invert a picture and keep the session; `stableflow edit --session` edits it without inverting again."""
    if source.image is None:
        raise InputError("--image is missing: name the picture to invert.")
    shaping = {name: getattr(model, name) for name in SHAPING}
    order = order_from(dataclasses.asdict(source) | shaping | {"layers": layers, "to": ["-"]})
    order.check()
    reporter, out = output.reporter(), output.out
    check_writable(out)
    refuse_to_replace(source.image, [out / "reconstruction.png"])
    editor = order.make_editor(model.open(reporter))
    made = make_source(editor, order, reporter)
    made.save(out)
    save_png(out / "reconstruction.png", to_pil(made.images[0], made.alpha))
    reporter.result(
        {"session": str(out), "reconstruction": str(out / "reconstruction.png"), "nfe": made.nfe},
        [
            f"{out}: session, {made.nfe} model evaluations",
            f"{out / 'reconstruction.png'}: what the model makes of it",
        ],
    )
