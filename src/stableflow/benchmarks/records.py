"""The records of a benchmark as they lie in a folder: anybody's, so each is checked before it is used."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from stableflow.jobs.cells import Record
from stableflow.reading import validated

FORGIVING = ConfigDict(extra="allow", strict=True)  # later versions may say more


class SettingDescribed(BaseModel):
    """What a job says of one of its settings."""

    model_config = FORGIVING
    curve: str = ""


class Job(BaseModel):
    """What a folder says of its benchmark."""

    model_config = FORGIVING
    benchmark: str
    model: str
    settings: dict[str, SettingDescribed]


class Pictures(BaseModel):
    """Names of pictures in the folder's own `pictures`."""

    model_config = FORGIVING
    source: str
    edits: list[str]
    target: str | None = None


class Trialled(BaseModel):
    """One case under one setting: figures and pictures, or the error that it ended with."""

    model_config = FORGIVING
    case: str
    setting: str
    category: str
    prompt: str
    edits: list[str]
    figures: dict[str, list[FiniteFloat | None]] = Field(default_factory=dict)
    pictures: Pictures | None = None
    error: str | None = None


def check_job(job: Any, where: str) -> Mapping[str, Any]:
    """Return a job.

    Raises:
        LoadError: It is of another shape; names file and field.
    """
    validated(Job, job, where=where)
    return job


def check_records(records: Iterable[tuple[str, Record]], where: str) -> list[Record]:
    """Return records, given with the names of their files.

    Raises:
        LoadError: One is of another shape; names file and field.
    """
    checked = []
    for key, record in records:
        found = validated(Trialled, _without_nan(record), where=f"{where}/cells/{key}.json")
        if found.error is None and (found.pictures is None or "figures" not in record):
            validated(_Finished, record, where=f"{where}/cells/{key}.json")
        checked.append(record)
    return checked


class _Finished(BaseModel):
    """A trial without an error has both."""

    figures: dict[str, Any]
    pictures: dict[str, Any]


def _without_nan(record: Any) -> Any:
    """The figures of empty masks are no numbers, which summaries leave out."""
    if not isinstance(record, dict) or not isinstance(record.get("figures"), dict):
        return record
    figures = {
        name: [None if isinstance(v, float) and v != v else v for v in row] if isinstance(row, list) else row
        for name, row in record["figures"].items()
    }
    return record | {"figures": figures}
