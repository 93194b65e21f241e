"""Rows of a batch: what each orders, how it is told from another, and which of them share a source."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stableflow.errors import InputError, StableFlowError
from stableflow.jobs.run import Task
from stableflow.order import OF_A_REPEATED_RUN, Order
from stableflow.reading import short

COLUMNS = ("id", *(name for name in Order.model_fields if name not in OF_A_REPEATED_RUN))
"""What a table may say of an order."""

LOADING = ("model", "dtype", "components", "parts", "lora", "quantise", "quantise_text", "max_sequence_length")
"""What decides which model is loaded, and how."""

EDITING = (
    "to",
    "reference",
    "region",
    "together",
    "exact",
    "guidance_each",
    "strength_each",
    "strength",
    "edit_guidance",
)
"""What a source does not depend on."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        id: Names the folder of its results.
        order: What is wanted; None where the row is no order.
        error: Why it is none.
    """

    id: str
    order: Order | None
    error: str = ""

    def digest(self) -> str:
        """Return what tells this order from any other: its values, and the content of the files that it names."""
        if self.order is None:
            return ""
        values = self.order.model_dump(mode="json", exclude_defaults=True)
        files = [self.order.image, _mask(self.order.region), *(self.order.reference or ())]
        contents = [hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else "" for path in files]
        return hashlib.sha256(json.dumps([values, contents], sort_keys=True).encode()).hexdigest()[:16]

    def loading(self) -> str:
        """Return what is the same in rows that are made by the same model."""
        return _key(self.order, lambda name: name in LOADING)

    def source(self) -> str:
        """Return what is the same in rows that share a source."""
        return _key(self.order, lambda name: name not in EDITING)


def make_rows(
    table: Sequence[Mapping[str, Any]], make_order: Callable[[dict[str, Any]], Order], beside: Path
) -> list[Row]:
    """Return the rows of a table; a row that is no order says why, and keeps none of the others from being made.

    Args:
        make_order: From a row's values to the order, checked.
        beside: The folder that files of a row are named from: the table's.

    Raises:
        InputError: An id is no name for a folder, or is there twice.
    """
    rows, width = list[Row](), len(str(len(table)))
    seen: dict[str, int] = {}
    for number, given in enumerate(table, start=1):
        values = {name: value for name, value in given.items() if name != "id"}
        name = str(given.get("id", f"{number:0{width}d}"))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise InputError(
                f"Row {number}: the id {short(name)} names a folder, so it has letters, digits, '.', '_' and '-' only."
            )
        if name.lower() in seen:
            raise InputError(f"Row {number}: the id {name!r} is that of row {seen[name.lower()]} already.")
        seen[name.lower()] = number
        try:
            order = make_order(_from_folder(values, beside))
            if order.image is None and order.seed is None:
                raise InputError("seed is missing: a row without an image needs one, so that it can be made again.")
            rows.append(Row(name, order))
        except StableFlowError as error:
            rows.append(Row(name, None, str(error)))
    return rows


def row_tasks(rows: Sequence[Row], *, together: int = 1) -> list[Task[tuple[Row, ...]]]:
    """Return the work, rows of one model and of one source after each other.

    Args:
        together: Most rows of one source in a task. A source is made once in a task, and tasks of one source that
            follow each other in one process share it too.
    """
    by_source: dict[tuple[str, str], list[Row]] = {}
    models = {key: i for i, key in enumerate(dict.fromkeys(row.loading() for row in rows))}
    for row in sorted(rows, key=lambda row: models[row.loading()]):
        by_source.setdefault((row.loading(), row.source()), []).append(row)
    parts = [
        tuple(alike[start : start + together])
        for alike in by_source.values()
        for start in range(0, len(alike), together)
    ]
    return [Task(tuple(row.id for row in part), part) for part in parts]


def _key(order: Order | None, wanted: Callable[[str], bool]) -> str:
    values = {} if order is None else order.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({name: value for name, value in values.items() if wanted(name)}, sort_keys=True)


def _mask(region: str | None) -> Path | None:
    kind, _, name = (region or "").removeprefix("~").partition(":")
    return Path(name) if kind == "mask" else None


def _from_folder(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return values whose files are named from the table's folder."""
    if isinstance(image := values.get("image"), str):
        values = values | {"image": str(folder / image)}
    region = values.get("region")
    if isinstance(region, str) and (mask := _mask(region)) is not None:
        values = values | {"region": region[: -len(str(mask))] + str(folder / mask)}
    return values
