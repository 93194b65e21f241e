"""A visitor's results on disk: a folder each, which appears whole or not at all."""

import json
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from stableflow.app.credentials import Credentials
from stableflow.app.visitors import Visitor
from stableflow.editing.leaning import not_made
from stableflow.editing.result import EditResult
from stableflow.errors import InputError, LoadError, UnknownNameError
from stableflow.files import replacing_folder, write_text_atomic
from stableflow.images import save_png
from stableflow.order import Order
from stableflow.reading import read_json

ENTRY = re.compile(r"[0-9]{14}-[0-9a-f]{12}")
FILE = re.compile(
    r"(?:given|mask(?:_[0-9]{1,2})?|thumb\.png|repeat\.py|repeat\.sh|session\.zip|[0-9]{1,2}/(?:source|edit_[0-9]{1,2})\.png)"
)
THUMB = 256  # pixels


@dataclass(frozen=True)
class Run:
    """One run of a request: an order, what came of it, and whether its source was a kept session.

    Args:
        notes: What to tell of it.
        leanings: Of each edit, how far it was made, below 0 not at all; empty where nobody looked.
        drawn: Of layers: for each that shows, whether it was drawn anew.
    """

    order: Order
    result: EditResult
    kept: bool
    seconds: float
    notes: Sequence[str] = ()
    leanings: Sequence[float] = ()
    drawn: Sequence[bool] = ()


def save_entry(
    visitor: Visitor,
    ask: dict[str, Any],
    runs: Sequence[Run],
    masks: Mapping[str, Path],
    lines: Mapping[str, str],
    credentials: Credentials | None = None,
) -> dict[str, Any]:
    """Write the runs of one request with everything that repeats them; returns the entry.

    Args:
        ask: The request, as JSON values.
        masks: Its masks' files, by the names that they get in the entry.
        lines: In Python and for the command line, that make it again.
        credentials: Put into the edited pictures.
    """
    name = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime())}-{secrets.token_hex(6)}"
    entry = {
        "id": name, "made": round(time.time(), 3), "ask": ask, "model": runs[0].order.model,
        "runs": [_listing(number, run) for number, run in enumerate(runs)], **lines,
    }  # fmt: skip
    with replacing_folder(visitor.history / name) as folder:
        first = runs[0].order
        if first.image is not None:
            shutil.copyfile(first.image, folder / "given")
        for mask, file in masks.items():
            shutil.copyfile(file, folder / mask)
        for number, run in enumerate(runs):
            original = first.image if run.result.region is not None else None
            files = run.result.save(folder / str(number), original=original)
            if credentials is not None:
                for edited in [file for file in files if file.name.startswith("edit_")]:
                    credentials.sign(edited, first.image)
        _save_thumb(folder)
        (folder / "repeat.py").write_text(entry["python"], encoding="utf-8")
        (folder / "repeat.sh").write_text(entry["command"], encoding="utf-8")
        write_text_atomic(folder / "entry.json", json.dumps(entry, ensure_ascii=False))
    return entry


def entries(visitor: Visitor, most: int) -> list[dict[str, Any]]:
    """Return a visitor's results, the latest first; what cannot be read is left out."""
    found = []
    names = sorted((path.name for path in visitor.history.glob("*") if ENTRY.fullmatch(path.name)), reverse=True)
    for name in names[:most]:
        try:
            found.append(read_json(visitor.history / name / "entry.json", what="a result"))
        except LoadError:
            continue
    return found


def find_entry(visitor: Visitor, name: str) -> Path:
    """Return the folder of a result.

    Raises:
        UnknownNameError: This visitor has none of this name.
    """
    folder = visitor.history / name
    if not ENTRY.fullmatch(name) or not (folder / "entry.json").is_file():
        raise UnknownNameError("There is no such result in your history.")
    return folder


def find_file(visitor: Visitor, name: str, file: str) -> Path:
    """Return a file of a result.

    Raises:
        UnknownNameError: There is no such result, or it has no such file.
    """
    path = find_entry(visitor, name) / file
    if not FILE.fullmatch(file) or not path.is_file():
        raise UnknownNameError("There is no such file in this result.")
    return path


def delete_entry(visitor: Visitor, name: str) -> None:
    """Delete a result."""
    shutil.rmtree(find_entry(visitor, name))


def require_place(visitor: Visitor, most: int) -> None:
    """Raise InputError where a visitor keeps as many results as one may."""
    if sum(1 for path in visitor.history.glob("*") if ENTRY.fullmatch(path.name)) >= most:
        raise InputError(f"Your history holds {most} results, as many as it takes. Delete some that you do not need.")


def clear_unfinished(folder: Path) -> None:
    """Delete what a killed process left half-written."""
    for left in folder.glob("visitors/*/*/.*.part"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _listing(number: int, run: Run) -> dict[str, Any]:
    recipe = run.result.recipe
    return {
        "task": run.order.task, "editor": run.order.method, "strength": run.order.strength, "seed": run.order.seed,
        "kept": run.kept,
        "seconds": round(run.seconds, 2), "nfe": recipe["nfe"], "layers": recipe.get("layers", []),
        "source": f"{number}/source.png",
        "pictures": [
            {"file": f"{number}/edit_{row}.png", "prompt": prompt, "made": lean is None or lean >= 0}
            for row, (prompt, lean) in enumerate(zip_longest(run.result.prompts, run.leanings), start=1)
        ],
        "image": recipe["source"]["image"], "warnings": not_made(run.result.prompts, run.leanings),
    } | ({"editor": "brushes", "strokes": _strokes(run)} if run.drawn else {})  # fmt: skip


def _strokes(run: Run) -> list[dict[str, Any]]:
    """What each layer that shows took: nothing where it was kept."""
    told = []
    for stroke, drawn in zip(run.result.recipe["strokes"], run.drawn, strict=True):
        passes = stroke["nfe"]["edit"] * stroke["nfe"]["rows"] if drawn else 0
        told.append({"prompt": stroke["prompt"], "drawn": drawn, "passes": passes})
    return told


def _save_thumb(folder: Path) -> None:
    with Image.open(folder / "0" / "edit_1.png") as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((THUMB, THUMB))
    save_png(folder / "thumb.png", shown)
