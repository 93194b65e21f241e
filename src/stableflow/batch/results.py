"""Where a batch keeps its results: a folder a row, there whole or not at all, and a summary of all."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stableflow.batch.rows import Row
from stableflow.errors import InputError, LoadError
from stableflow.files import replacing_folder, write_text_atomic
from stableflow.reading import read_json

MADE, FAILED, MISSING = "made", "failed", "missing"
RECORD = "row.json"


@dataclass(frozen=True)
class Made:
    """What became of a row.

    Args:
        status: "made" or "failed".
        error: Why it failed.
        seconds: That it took, its source counted where it was made for this row.
        files: What to write, by name.
    """

    status: str
    error: str
    seconds: float
    files: dict[str, bytes]


class RowResults:
    """Results by row; a batch that is started again finds here what it has made already.

    Rows that failed, and rows whose order or files have changed since, are made again.

    Args:
        folder: Holds a folder for each row.
        rows: All of the batch.

    Raises:
        InputError: A row's folder is there and holds something else.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]):
        self.folder, self._rows = folder, {row.id: row for row in rows}
        self._records: dict[str, dict[str, Any]] = {}
        self._digests = {row.id: row.digest() for row in rows}
        for row in rows:
            found = self._found(row)
            if found.get("status") == MADE and found.get("digest") == self._digests[row.id]:
                self._records[row.id] = found

    def has(self, keys: Iterable[str]) -> bool:
        """Whether all of these are made, or were tried by this process."""
        return all(key in self._records for key in keys)

    def put(self, key: str, record: Made) -> None:
        """Write one row's folder."""
        told = {"id": key, "digest": self._digests[key], **asdict(record), "files": sorted(record.files)}
        order = self._rows[key].order
        if order is not None:
            told |= {"prompt": order.prompt, "to": order.to}
        with replacing_folder(self.folder / key) as temporary:
            for name, content in record.files.items():
                (temporary / name).write_bytes(content)
            (temporary / RECORD).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        self._records[key] = told

    def refresh(self) -> None:
        """Nothing is added by others: one process writes."""

    def unmade(self) -> list[Row]:
        """Return the rows that are still to be made, in the table's order."""
        return [row for row in self._rows.values() if row.id not in self._records]

    def failed(self) -> list[dict[str, Any]]:
        """Return the records of the rows that failed."""
        return [record for record in self._records.values() if record["status"] == FAILED]

    def write_summary(self) -> Path:
        """Write a line for each row, in the table's order."""
        missing = {"status": MISSING}
        lines = [json.dumps({"id": key, **self._records.get(key, missing)}, ensure_ascii=False) for key in self._rows]
        write_text_atomic(self.folder / "summary.jsonl", "\n".join(lines) + "\n")
        return self.folder / "summary.jsonl"

    def _found(self, row: Row) -> dict[str, Any]:
        folder = self.folder / row.id
        if not folder.exists():
            return {}
        if not (folder / RECORD).is_file():
            raise InputError(
                f"{folder} is there and holds no result of a batch, so it is not replaced. Choose another --out, or "
                "another id."
            )
        try:
            found = read_json(folder / RECORD)
        except LoadError:
            return {}
        return found if isinstance(found, dict) else {}
