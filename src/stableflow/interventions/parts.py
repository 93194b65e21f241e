"""Which of key and value an intervention meets."""

from collections.abc import Sequence

from stableflow.errors import InputError
from stableflow.models.base import PARTS
from stableflow.reading import short


def check_parts(parts: Sequence[str]) -> None:
    """Raise unless these are keys, values or both, each at most once."""
    plain = isinstance(parts, (list, tuple)) and all(type(part) is str for part in parts)
    if not plain or not parts or not set(parts) <= set(PARTS) or len(set(parts)) != len(parts):
        raise InputError(f"parts must be some of {PARTS}, each once, got {short(parts)}.")
