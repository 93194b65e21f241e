"""Which of key and value an intervention meets."""

from collections.abc import Sequence

from stableflow.errors import InputError
from stableflow.models.base import PARTS


def check_parts(parts: Sequence[str]) -> None:
    """Raise unless these are keys, values or both, each at most once."""
    if not parts or not set(parts) <= set(PARTS) or len(set(parts)) != len(parts) or isinstance(parts, str):
        raise InputError(f"parts must be some of {PARTS}, each once, got {parts!r}.")
