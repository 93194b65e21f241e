"""Checks of single arguments at the border: a plain Python value comes back, or one error names argument and cause."""

import math
import numbers
import operator
import re
from pathlib import Path
from typing import Any

import numpy as np

from stableflow.errors import InputError
from stableflow.reading import short

MOST_STEPS = 10_000
LARGEST_SEED = 2**63 - 1
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
