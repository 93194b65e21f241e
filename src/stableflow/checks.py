"""Checks of single arguments at the border: a plain Python value comes back, or one error names argument and cause."""

import dataclasses
import math
import numbers
import operator
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stableflow.errors import InputError, unknown_name
from stableflow.reading import short

MOST_STEPS = 10_000
LARGEST_SEED = 2**63 - 1
LARGEST_GUIDANCE = 1000.0
LONGEST_SIDE = 65_536  # pixels
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False, hint: str = ""
) -> float:
    """Return a finite number as a float; Python's, numpy's and one-element tensors' are taken.

    Args:
        name: Of the argument, for the message.
        low, high: Its range, ends included.
        above: `low` itself is out of range.
        hint: A sentence that ends the message.

    Raises:
        InputError: None, a boolean, text, NaN, infinite or out of range.
    """
    plain = _scalar(value)
    if isinstance(plain, (bool, np.bool_)) or not isinstance(plain, numbers.Real):
        raise InputError(_message(name, f"must be a number, got {short(value)}", hint))
    number = _as_float(plain)
    if not math.isfinite(number):
        raise InputError(_message(name, f"must be a finite number, got {short(value)}", hint))
    if number < low or number > high or (above and number == low):
        raise InputError(_message(name, f"must {_range(low, high, above)}, got {short(value)}", hint))
    return number


def check_count(name: str, value: Any, low: int = 1, high: int | None = None, *, hint: str = "") -> int:
    """Return a whole number as an int; Python's, numpy's and one-element tensors' are taken, 2.0 and True are not.

    Raises:
        InputError: None, a boolean, text, a fraction or out of range.
    """
    plain = _scalar(value)
    if isinstance(plain, (bool, np.bool_)) or not isinstance(plain, numbers.Integral):
        raise InputError(_message(name, f"must be a whole number, got {short(value)}", hint))
    count = operator.index(plain)
    if count < low or (high is not None and count > high):
        raise InputError(_message(name, f"must {_range(low, high)}, got {short(count)}", hint))
    return count


def check_steps(name: str, value: Any) -> int:
    """Return a number of steps, 1 to 10,000."""
    return check_count(name, value, 1, MOST_STEPS)


def check_seed(name: str, value: Any) -> int:
    """Return a seed, 0 to 2**63 - 1."""
    return check_count(name, value, 0, LARGEST_SEED)


def check_text(name: str, value: Any, *, empty: bool = True) -> str:
    """Return text.

    Args:
        empty: Whether a text of nothing but space is taken.

    Raises:
        InputError: No text, empty, or not valid Unicode (on the command line: bytes that are no UTF-8).
    """
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, got {short(value)}.")
    if _SURROGATE.search(value):
        raise InputError(f"{name} is not valid text (UTF-8): {ascii(value)[:80]}.")
    if not empty and not value.strip():
        raise InputError(f"{name} is empty.")
    return value


def check_texts(name: str, value: Any, *, empty: bool = True) -> tuple[str, ...]:
    """Return one text, or a sequence of them, as a tuple.

    Raises:
        InputError: Something else, or an entry that `check_text` refuses; names the entry.
    """
    if isinstance(value, str):
        return (check_text(name, value, empty=empty),)
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{name} must be text or a list of texts, got {short(value)}.")
    return tuple(check_text(f"{name}[{i}]", text, empty=empty) for i, text in enumerate(value))


def check_path(name: str, value: Any) -> Path:
    """Return a path with `~` resolved.

    Raises:
        InputError: No path, or the home of a user who is not there.
    """
    if not isinstance(value, (str, Path)) or "\0" in str(value):
        raise InputError(f"{name} must be a path, got {short(value)}.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name}: {short(str(value))} is in no home folder that is known here.") from error


def check_flag(name: str, value: Any) -> bool:
    """Return True or False; nothing else is taken for one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, got {short(value)}.")
    return bool(value)


def check_callable(name: str, value: Any) -> None:
    """Raise InputError unless it is a function, or None."""
    if value is not None and not callable(value):
        raise InputError(f"{name} must be a function or None, got {short(value)}.")


def check_pair(name: str, value: Any, what: str = "(height, width)") -> tuple[Any, Any]:
    """Return a pair of anything."""
    if isinstance(value, (str, bytes, dict, set)) or not isinstance(value, Iterable):
        raise InputError(f"{name} must be a pair {what}, got {short(value)}.")
    entries = list(value)
    if len(entries) != 2:
        raise InputError(f"{name} must be a pair {what}, got {short(value)}.")
    return entries[0], entries[1]


def check_points(name: str, value: Any) -> list[tuple[float, float]]:
    """Return a list of pixels (x, y) as numbers."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{name} must be a list of pixels (x, y), got {short(value)}.")
    pairs = [check_pair(f"{name}[{i}]", point, "(x, y)") for i, point in enumerate(value)]
    return [(check_number(f"{name}[{i}] x", x), check_number(f"{name}[{i}] y", y)) for i, (x, y) in enumerate(pairs)]


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return one of these names.

    Raises:
        UnknownNameError: Another name, or no text; lists the known ones.
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise unknown_name(name, value, names)
    return value


def check_guidance(name: str, value: Any) -> Any:
    """Return a guidance scale of 0 or more, or a list of them; None is the model's own."""
    if isinstance(value, (list, tuple)):
        return tuple(check_number(f"{name}[{i}]", scale, 0, LARGEST_GUIDANCE) for i, scale in enumerate(value))
    return None if value is None else check_number(name, value, 0, LARGEST_GUIDANCE)


def check_fields(settings: Any) -> None:
    """Hold a frozen dataclass to its own annotations, and keep numpy's and torch's numbers as Python's.

    Fields of bool, int, float, str, a Literal, lists and tuples of these, and None beside one of them are checked; what
    may be of several other kinds is for the class itself.

    Raises:
        InputError, UnknownNameError: Names the field.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        if field.init:
            plain = _as_hinted(field.name, getattr(settings, field.name), hints[field.name])
            object.__setattr__(settings, field.name, plain)


def _as_hinted(name: str, value: Any, hint: Any) -> Any:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    if len(kinds) == 2 and isinstance(value, (list, tuple)):  # one number, or one an edit
        kinds = [kind for kind in kinds if typing.get_origin(kind) is Sequence and float in kinds] or kinds
    elif len(kinds) == 2 and float in kinds and any(typing.get_origin(kind) is Sequence for kind in kinds):
        kinds = [float]
    return _as_kind(name, value, kinds[0]) if len(kinds) == 1 else value


def _as_kind(name: str, value: Any, kind: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN_CHECKS:
        return PLAIN_CHECKS[kind](name, value)
    if origin is Literal:
        return check_choice(name, value, inner)
    if origin in (tuple, Sequence) and inner[0] in PLAIN_CHECKS:
        length = None if origin is Sequence or Ellipsis in inner else len(inner)
        if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
            wanted = "a list" if length is None else f"{length} values"
            raise InputError(f"{name} must be {wanted} of {inner[0].__name__}, got {short(value)}.")
        return tuple(_as_kind(f"{name}[{i}]", entry, inner[0]) for i, entry in enumerate(value))
    return value


def _scalar(value: Any) -> Any:
    """The number of a numpy or torch scalar; everything else as it is."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _as_float(value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _range(low: float, high: float | None, above: bool = False) -> str:
    if high is None or math.isinf(high):
        return f"be {'above' if above else 'at least'} {low}"
    if math.isinf(low):
        return f"be at most {high}"
    return f"lie in {'(' if above else '['}{low}, {high}]"


def _message(name: str, what: str, hint: str) -> str:
    return f"{name} {what}." + (f" {hint}" if hint else "")


PLAIN_CHECKS: dict[Any, Any] = {
    bool: check_flag,
    int: lambda name, value: check_count(name, value, -LARGEST_SEED, LARGEST_SEED),
    float: check_number,
    str: check_text,
}
