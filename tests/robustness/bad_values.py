"""Values of every kind that an argument must not be, and how it is seen that they are refused."""

import dataclasses
import types
import typing
from collections.abc import Sequence

import numpy as np
import torch

from stableflow.errors import StableFlowError

NAN, INF = float("nan"), float("inf")
ODD = [
    b"1",
    {},
    {"a": 1},
    set(),
    object(),
    1j,
    object,
    np.array([[1, 2], [3, 4]]),
    torch.ones(2, 2),
    "\ud800",
    [[]],
    [None],
]
NO_NUMBER = [*ODD, "", "x", "1", [], (), True, NAN, INF, -INF, 10**400, np.float32("nan"), torch.tensor(INF)]
NO_COUNT = [*NO_NUMBER, 1.5, 2.0, np.float64(2.0), -1, -(2**70), 2**70]
NO_TEXT = [*ODD, 1, 1.5, True, NAN]
NO_FLAG = [*ODD, None, 0, 1, "", "yes", "False", 1.0, NAN, []]
NO_FUNCTION = [*[odd for odd in ODD if odd is not object], 1, "print", True, NAN, []]
NO_PATH = [*[odd for odd in ODD if not isinstance(odd, str)], None, 7, True, NAN, "a\0b", "~nosuchuserhere/a", []]
NO_LIST = [*ODD, 1, True, NAN, "x", ""]


def refused(call, *named: str) -> str | None:
    """None where a call is refused by an error that says one of these words; else what it did."""
    try:
        result = call()
    except (StableFlowError, TypeError) as error:
        message = str(error)
        if not any(word in message for word in named):
            return f"{type(error).__name__} does not name {named}: {message[:160]}"
        return f"{len(message)} characters" if len(message) > 1500 else None
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:160]}"
    return f"accepted: {str(type(result))[:60]}"


def faults(cases) -> tuple[list[str], int]:
    """Of (what, call, words) those that are not refused rightly, and how many there were."""
    cases = list(cases)
    found = [(what, refused(call, *words)) for what, call, words in cases]
    return [f"{what}: {fault}" for what, fault in found if fault], len(cases)


def shown(value) -> str:
    try:
        return ascii(value)[:50].replace("\n", " ")
    except Exception:
        return type(value).__name__


def bad_values(hint) -> list:
    """What a field of this annotation must refuse, whatever the class."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    values = [] if types.NoneType in kinds else [None]
    for value in [*NO_COUNT, *NO_TEXT, *NO_FLAG, *NO_LIST]:
        if value is not None and not any(_may_hold(value, kind) for kind in kinds):
            values.append(value)
    unique = {(type(value).__name__, shown(value)): value for value in values}
    return list(unique.values())


def _may_hold(value, kind) -> bool:
    origin = typing.get_origin(kind)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return bool(number and 0 <= value < 10**6 and np.isfinite(value))
    if kind is str:
        return isinstance(value, str) and value.isascii()
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and len(value) == 0
    if isinstance(value, torch.Tensor) and "Float" in str(kind):
        return bool(value.ndim)
    return dataclasses.is_dataclass(kind) and isinstance(value, kind)
