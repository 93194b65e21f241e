"""Everything that this package raises on purpose; one message says what was given, what is true, what to do next."""

import difflib
import reprlib
from collections.abc import Iterable


class StableFlowError(Exception):
    """Any error that this package raises on purpose."""


class InputError(StableFlowError, ValueError):
    """An argument is out of range or does not go with another."""


class UnknownNameError(StableFlowError, KeyError):
    """A name is not among the known ones."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr of its message


class ImageError(StableFlowError, ValueError):
    """A picture cannot be read or used."""


class LoadError(StableFlowError, OSError):
    """A model or a saved source cannot be loaded."""


class TokenLayoutError(StableFlowError, ValueError):
    """Tokens of one forward pass do not fit those of another."""


class FingerprintError(StableFlowError, ValueError):
    """A source is used under other settings than it was made with."""


class InterventionError(StableFlowError, RuntimeError):
    """An intervention could not act as asked."""


class NumericsError(StableFlowError, ArithmeticError):
    """A computation produced NaN or infinity."""


class MissingExtraError(StableFlowError, ImportError):
    """An optional dependency is not installed."""


class OutputError(StableFlowError, OSError):
    """A result cannot be written."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that is not known, or is no text: it lists the known names and the nearest."""
    names = list(known)
    nearest = difflib.get_close_matches(name[:100], names, n=1) if isinstance(name, str) else []
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UnknownNameError(f"Unknown {kind} {reprlib.repr(name)[:200]}. Known: {', '.join(names)}.{hint}")
