"""Names for plug-ins: a solver, a model family or a metric registers beside its own definition."""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from stableflow.errors import InputError, unknown_name

Entry = TypeVar("Entry")
Plugin = TypeVar("Plugin")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """A mapping from public names to plug-ins that refuses a name given twice.

    Example:
        >>> solvers = Registry("solver")
        >>> @solvers.register("euler")
        ... class Euler: ...
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Plugin], Plugin]:
        """Return a decorator that files what it decorates under `name`."""

        def decorate(entry: Plugin) -> Plugin:
            if name in self._entries:
                raise InputError(f"A {self.kind} named {name!r} is registered already; choose another name.")
            self._entries[name] = entry  # pyright: ignore[reportArgumentType]: the decorated object is the entry
            return entry

        return decorate

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
