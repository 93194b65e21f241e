"""Reading a table of orders: CSV, JSON lines or Parquet."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stableflow.errors import InputError, LoadError, MissingExtraError, unknown_name
from stableflow.reading import parse_json, read_text, short

LARGEST_TABLE = 256 * 2**20  # bytes
LISTS = (
    "to", "set", "guidance_each", "strength_each", "edit_guidance", "solver", "preset", "weight", "layers", "lora",
    "parts", "reference",
)  # fmt: skip
"""Columns in which a cell of text that starts with [ or { is JSON."""


def read_table(path: Path, known: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of a table, without their empty cells.

    Args:
        path: .csv with a header line, .jsonl with an object a line, or .parquet.
        known: The names that columns may have.

    Raises:
        LoadError: The file is missing, damaged or of another kind; names the line.
        UnknownNameError: A column is unknown; lists the known ones.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    readers = {".csv": _csv, ".jsonl": _lines, ".ndjson": _lines, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise LoadError(f"{path} is no table: give a .csv, .jsonl or .parquet file, with one row an order.")
    rows = readers[path.suffix.lower()](path)
    names = list(known)
    for column in {column: None for row in rows for column in row}:
        if column not in names:
            raise unknown_name(f"column of {path.name}", column, names)
    if not rows:
        raise InputError(f"{path} holds no row.")
    return [{name: _value(name, value) for name, value in row.items() if not _empty(value)} for row in rows]


def _csv(path: Path) -> list[Mapping[str, Any]]:
    text = read_text(path, what="the table", most_bytes=LARGEST_TABLE)
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    rows: list[Mapping[str, Any]] = []
    try:
        for row in reader:
            if "" in row:
                raise LoadError(
                    f"{path}, line {reader.line_num}: there are more cells than columns. Put text with commas into "
                    'quotes, such as "a dog, sitting".'
                )
            rows.append(row)
    except csv.Error as error:
        raise LoadError(f"{path}, line {reader.line_num}: this is no CSV: {error}.") from error
    return rows


def _lines(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    text = read_text(path, what="the table", most_bytes=LARGEST_TABLE)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, where=f"{path}, line {number}")
        if not isinstance(row, dict):
            raise LoadError(f'{path}, line {number}: a row is an object such as {{"to": "..."}}, got {short(row)}.')
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[Mapping[str, Any]]:
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            f"Reading {path.name} needs pyarrow: pip install pyarrow. Or save the table as .csv or .jsonl."
        ) from error
    if not path.is_file():
        raise LoadError(f"{path} cannot be read: there is no such file. Check the path.")
    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} is no Parquet file: {' '.join(str(error).split())[:200]}") from error


def _empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _value(name: str, value: Any) -> Any:
    """Return a cell as an order takes it; one prompt in `to` is a list of one."""
    if name in LISTS and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError, RecursionError):  # text may only look like JSON, such as a prompt in brackets
            value = json.loads(value)
    return [value] if name == "to" and isinstance(value, str) else value
