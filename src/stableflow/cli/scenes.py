"""`stableflow scenes`: scenes of the synthetic world and their true edits."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Annotated

import typer

from stableflow.checks import check_count, check_seed
from stableflow.cli import options as o
from stableflow.cli.output import Format, Reporter
from stableflow.files import check_writable, write_text_atomic
from stableflow.images import save_png, to_pil
from stableflow.scenes import Scene, attributes, caption, changed_region, edit, render, sample


def scenes(
    out: o.Out = Path("out/scenes"),
    count: Annotated[int, typer.Option("--count", "-n", help="Scenes.")] = 8,
    size: Annotated[int, typer.Option("--size", help="Pixels on a side.")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Of the first scene.")] = 0,
    layers: Annotated[
        int, typer.Option("--layers", help="Of the world: 2, or 3 with positions, sizes and second figures.")
    ] = 2,
    quiet: o.Quiet = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Write each scene, one true edit of it, the mask of what the edit changes, and both captions."""
    check_count("--count", count, 1, 100_000)
    check_count("--size", size, 16, 4096)
    check_seed("--seed", seed)
    attributes(layers)  # refused before anything is written
    check_writable(out)
    records = [_write_pair(out, seed + i, size, layers) for i in range(count)]
    write_text_atomic(out / "scenes.json", json.dumps(records, indent=2) + "\n")
    lines = [f"{out / record['source']}: {record['caption']} -> {record['target_caption']}" for record in records]
    Reporter(quiet=quiet, form=form).result({"scenes": records}, lines)


def _write_pair(out: Path, seed: int, size: int, layers: int) -> dict:
    rng = random.Random(seed)
    source = sample(rng, layers)
    attribute, values = rng.choice(list(attributes(layers).items()))
    value = rng.choice([value for value in values if value != getattr(source, attribute)])
    target = edit(source, **{attribute: value})
    names = {part: f"{seed:05d}-{part}.png" for part in ("source", "target", "mask")}
    for part, scene in (("source", source), ("target", target)):
        save_png(out / names[part], to_pil(render(scene, size)))
    mask = changed_region(source, target, size).float().expand(3, -1, -1)
    save_png(out / names["mask"], to_pil(mask))
    return {**names, **_described("", source), **_described("target_", target), "changed": {attribute: value}}


def _described(prefix: str, scene: Scene) -> dict:
    return {f"{prefix}caption": caption(scene), f"{prefix}scene": dataclasses.asdict(scene)}
