"""The results of a long job: one small file a cell, each there whole or not at all."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stableflow.errors import InputError, LoadError
from stableflow.files import write_text_atomic, write_text_once
from stableflow.reading import read_json, short

Record = Mapping[str, Any]
"""What one cell found, as JSON values."""


class Cells:
    """Records by key; a job that is started again finds here what it has done already.

    Args:
        folder: Where they are kept; None keeps them in memory only.
        job: Every setting that the numbers depend on. A folder belongs to one job.
        growing: Names in `job` of mappings to which a later start may bring more; what both hold must agree.

    Raises:
        InputError: The folder holds cells of another job; names what differs.
        LoadError: A file in it is damaged.
    """

    def __init__(self, folder: Path | None, job: Record, *, growing: Sequence[str] = ()):
        self.folder, self.job = folder, job
        self._records: dict[str, Record] = {}
        if folder is None:
            return
        described = json.loads(json.dumps(job))
        path = folder / "job.json"
        new = not path.exists() and write_text_once(path, json.dumps(described, indent=1) + "\n")
        if not new:  # or another process, which starts at this moment, has written it
            there = _read(path)
            grown = _with_more(there, described, growing)
            _require_same(grown, _with_more(described, there, growing), folder)
            if grown != there:
                write_text_atomic(path, json.dumps(grown, indent=1) + "\n")
        self.refresh()

    @staticmethod
    def open(folder: Path) -> "Cells":
        """Open a job that is there already, to read it."""
        return Cells(folder, _read(folder / "job.json"))

    def values(self) -> Iterator[Record]:
        """Return every record, in no order."""
        return iter(self._records.values())

    def items(self) -> Iterator[tuple[str, Record]]:
        """Return every record with its key, in no order."""
        return iter(self._records.items())

    def refresh(self) -> None:
        """Read what other processes have added to the folder."""
        if self.folder is not None:
            for path in (self.folder / "cells").glob("*.json"):
                if path.stem not in self._records:
                    self._records[path.stem] = _read(path)

    def put(self, key: str, record: Record) -> None:
        """Keep one result; `key` names its file."""
        if self.folder is not None:
            write_text_atomic(self.folder / "cells" / f"{key}.json", json.dumps(record) + "\n")
        self._records[key] = record

    def has(self, keys: Iterable[str]) -> bool:
        """Whether all of these are done."""
        return all(key in self._records for key in keys)

    def __getitem__(self, key: str) -> Record:
        return self._records[key]

    def __len__(self) -> int:
        return len(self._records)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except LoadError as error:
        raise LoadError(f"{path} is damaged ({error}). Delete it; the job then makes it again.") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path} is damaged: it holds {short(content)}. Delete it; the job then makes it again.")
    return content


def _with_more(job: Record, other: Record, names: Sequence[str]) -> dict[str, Any]:
    """Return a job with what another has beyond it under these names; what the job has comes first and stays."""
    more = {
        name: {**job[name], **{k: v for k, v in other.get(name, {}).items() if k not in job[name]}} for name in names
    }
    return {**job, **more}


def _require_same(there: Record, here: Record, folder: Path) -> None:
    names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    if names:
        shown = "; ".join(
            f"{name} is {short(there.get(name))} there and {short(here.get(name))} here" for name in names
        )
        raise InputError(
            f"{folder / 'job.json'} holds another job: {shown}. Its numbers must not be mixed: choose another, or "
            "delete this one."
        )
