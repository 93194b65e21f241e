"""Reading other people's files: every fault is one error that names the file and the entry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stableflow import reading
from stableflow.errors import LoadError
from stableflow.reading import confined, short

LARGEST_ANNOTATIONS = 1_000_000_000  # bytes; COCO's of its training split have half of that


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, of the size that annotations have."""
    return reading.read_json(path, most_bytes=LARGEST_ANNOTATIONS)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; only plain values, never objects."""
    return reading.read_yaml(path)


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """Return one value of an entry.

    Args:
        kind: Its type; float takes whole numbers too.
        where: File and entry, for the message.

    Raises:
        LoadError: The entry is no mapping, lacks the key, or holds something else there.
    """
    if not isinstance(entry, Mapping):
        raise LoadError(f"{where} must be a mapping of names to values, got {short(entry)}.")
    if key not in entry:
        raise LoadError(f"{where} has no {key!r}; it has {', '.join(map(short, list(entry)[:9])) or 'nothing'}.")
    value = entry[key]
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise LoadError(f"{where}: {key!r} must be {_KINDS.get(kind, kind.__name__)}, got {short(value)}.")
    return value


def text(entry: Any, key: str, where: str) -> str:
    """Return a text of an entry without the space around it; an empty one is refused."""
    value = field(entry, key, str, where).strip()
    if not value:
        raise LoadError(f"{where}: {key!r} is empty.")
    return value


def inside(folder: Path, name: str, where: str) -> Path:
    """Return a file within a data set's folder.

    Raises:
        LoadError: The name leads out of the folder, by itself or through a link, or there is no such file.
    """
    path = confined(folder, name, where, called="the data set's folder")
    if not path.is_file():
        raise LoadError(f"{where}: there is no file {path}. Check the folder, or take the entry out.")
    return path


_KINDS = {str: "text (put it in quotes)", int: "a whole number", list: "a list", dict: "a mapping", float: "a number"}
