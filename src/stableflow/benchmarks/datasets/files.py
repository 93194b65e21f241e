"""Reading other people's files: every fault is one error that names the file and the entry."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from stableflow.errors import LoadError


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise LoadError(f"{path} is not valid JSON: {error}") from error


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; only plain values, never objects."""
    try:
        return yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise LoadError(f"{path} is not valid YAML: {error}") from error


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """Return one value of an entry.

    Args:
        kind: Its type; float takes whole numbers too.
        where: File and entry, for the message.

    Raises:
        LoadError: The entry is no mapping, lacks the key, or holds something else there.
    """
    if not isinstance(entry, Mapping):
        raise LoadError(f"{where} must be a mapping of names to values, got {_short(entry)}.")
    if key not in entry:
        raise LoadError(f"{where} has no {key!r}; it has {', '.join(map(repr, entry)) or 'nothing'}.")
    value = entry[key]
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise LoadError(f"{where}: {key!r} must be {_KINDS.get(kind, kind.__name__)}, got {_short(value)}.")
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
        LoadError: The name leads out of the folder, or there is no such file.
    """
    windows, parts = PureWindowsPath(name), PurePosixPath(name).parts
    if windows.drive or windows.root or ".." in (*parts, *windows.parts) or "\0" in name:
        raise LoadError(f"{where}: {name!r} leads out of the data set's folder, so it is not opened.")
    path = folder / name
    if not path.is_file():
        raise LoadError(f"{where}: there is no file {path}. Check the folder, or take the entry out.")
    return path


_KINDS = {str: "text (put it in quotes)", int: "a whole number", list: "a list", dict: "a mapping", float: "a number"}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LoadError(f"{path} cannot be read: {reason}.") from error


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
