"""Reading files that may be anybody's: bounded before they are parsed, and one error that names file and reason."""

import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel, ValidationError

from stableflow.errors import LoadError

LARGEST_JSON = 32 * 2**20  # bytes
LARGEST_YAML = 4 * 2**20  # bytes; the parser needs seconds a megabyte
DEEPEST = 64  # levels of lists and mappings
MOST_NODES = 500_000  # values of a YAML file with every alias written out
REPORTED = 3  # faults of one file that a message names

Model = TypeVar("Model", bound=BaseModel)

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(path: str | Path, *, what: str = "", most_bytes: int = LARGEST_JSON) -> Any:
    """Return what a JSON file holds.

    Args:
        what: The file's part, such as "the settings of the session", for messages.
        most_bytes: Refuse larger files before reading them.

    Raises:
        LoadError: Missing, too large, no text, too deep or damaged; names the file.
    """
    return parse_json(read_text(path, what=what, most_bytes=most_bytes), where=_named(path, what))


def parse_json(text: str, *, where: str) -> Any:
    """Return what a JSON text holds.

    Args:
        where: The file, for messages.

    Raises:
        LoadError: Nested too deeply, damaged, or with text that is no Unicode.
    """
    brackets = np.frombuffer(_STRING.sub("", text).encode("utf-8", "replace"), dtype=np.uint8)
    opened, closed = (brackets == ord("[")) | (brackets == ord("{")), (brackets == ord("]")) | (brackets == ord("}"))
    if int((opened.astype(np.int32) - closed).cumsum(dtype=np.int32).max(initial=0)) > DEEPEST:
        raise LoadError(f"{where} is nested more than {DEEPEST} levels deep, so it is not read.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{where} is not valid JSON: {_reason(error)}") from error
    if "\\u" in text and _SURROGATE.search(json.dumps(content, ensure_ascii=False)):
        raise LoadError(f"{where} holds half of a character (a lone surrogate), which is no text.")
    return content


def read_yaml(path: str | Path, *, what: str = "", most_bytes: int = LARGEST_YAML) -> Any:
    """Return what a YAML file holds; only plain values, never objects.

    Args:
        what: The file's part, for messages.
        most_bytes: Refuse larger files before reading them.

    Raises:
        LoadError: Missing, too large, no text, too deep, damaged, or with aliases that multiply; names the file.
    """
    return parse_yaml(read_text(path, what=what, most_bytes=most_bytes), where=_named(path, what))


def parse_yaml(text: str, *, where: str) -> Any:
    """Return what a YAML text holds; `where` is the file, for messages.

    Raises:
        LoadError: Too deep, damaged, or with aliases that multiply.
    """
    try:
        loader = _Bounded(text)
        loader.where = where
        root = loader.get_single_node()
        if root is None:
            return None
        if _written_out(root, {}, where) > MOST_NODES:
            raise LoadError(f"{where} holds aliases that multiply to more than {MOST_NODES:,} values; it is not read.")
        return loader.construct_document(root)
    except LoadError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise LoadError(f"{where} is not valid YAML: {_reason(error)}") from error


def read_text(path: str | Path, *, what: str = "", most_bytes: int = LARGEST_JSON) -> str:
    """Return a file's text (UTF-8).

    Raises:
        LoadError: Missing, no regular file, too large or no UTF-8; names the file.
    """
    path, where = Path(path), _named(path, what)
    try:
        if not path.exists():
            raise LoadError(f"{where} cannot be read: No such file or folder. Check the path.")
        if not path.is_file():
            raise LoadError(f"{where} cannot be read: it is no file.")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except LoadError:
        raise
    except (OSError, ValueError) as error:
        raise LoadError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > most_bytes:
        raise LoadError(f"{where} is too large: at most {most_bytes:,} bytes are read of such a file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoadError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def validated(model: type[Model], data: Any, *, where: str) -> Model:
    """Return data as a pydantic model.

    Args:
        where: File and entry, for messages.

    Raises:
        LoadError: Names the file and each field that is missing, unknown or out of place.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise LoadError(f"{where}: {faults(error)}.") from error
    except RecursionError as error:
        raise LoadError(f"{where} is nested too deeply.") from error


def faults(error: ValidationError) -> str:
    """Return what is wrong with which fields, in one line of bounded length."""
    lines = [_fault(dict(fault)) for fault in error.errors(include_url=False)]
    more = len(lines) - REPORTED
    return "; ".join(lines[:REPORTED]) + (f"; and {more} more" if more > 0 else "")


def short(value: Any) -> str:
    """Return a value for a message: never longer than a line, however large or deep it is."""
    shown = _SHORT.repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def confined(folder: str | Path, name: str, where: str, *, called: str = "") -> Path:
    """Return the path of a file that a record names, within a folder.

    Args:
        name: As the record has it, with slashes.
        where: File and entry that name it, for messages.
        called: What the folder is, for messages; its path when empty.

    Raises:
        LoadError: The name is absolute or leads out of the folder, by itself or through a link.
    """
    called = called or str(folder)
    windows, parts = PureWindowsPath(name), PurePosixPath(name).parts
    if not name or windows.drive or windows.root or ".." in (*parts, *windows.parts) or "\0" in name:
        raise LoadError(f"{where}: {short(name)} leads out of {called}, so it is not opened.")
    path = Path(folder) / name
    try:
        real, root = path.resolve(), Path(folder).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise LoadError(f"{where}: {short(name)} cannot be followed: {error}.") from error
    if not real.is_relative_to(root):
        raise LoadError(f"{where}: {short(name)} is a link that leads out of {called}, so it is not opened.")
    return path


class _Bounded(yaml.SafeLoader):
    """Refuses deep nesting while it is read."""

    depth, where = 0, ""

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise LoadError(f"{self.where} is nested more than {DEEPEST} levels deep, so it is not read.")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _written_out(node: Any, sizes: dict[int, int], where: str) -> int:
    """How many values a node holds once every alias is written out."""
    known = sizes.get(id(node))
    if known == 0:
        raise LoadError(f"{where} holds a value that contains itself.")
    if known is not None:
        return known
    if isinstance(node, yaml.ScalarNode):
        if _SURROGATE.search(node.value):
            raise LoadError(f"{where} holds half of a character (a lone surrogate), which is no text.")
        return 1
    sizes[id(node)] = 0
    pairs = isinstance(node, yaml.MappingNode)
    children = [part for pair in node.value for part in pair] if pairs else node.value
    sizes[id(node)] = 1 + sum(_written_out(child, sizes, where) for child in children)
    return sizes[id(node)]


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple = 2, 4, 4, 4
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 70


def _named(path: str | Path, what: str) -> str:
    return f"{path} ({what})" if what else str(path)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _fault(fault: Mapping[str, Any]) -> str:
    place = ".".join(str(part)[:40] for part in fault["loc"]) or "the whole"
    given = "" if fault["type"] == "missing" else f" (got {short(fault.get('input'))})"
    return f"{place}: {' '.join(str(fault['msg']).split())[:160]}{given}"
