"""Names for plug-ins: a solver, a model family or a metric registers beside its own definition."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from stableflow.errors import InputError, unknown_name

Entry = TypeVar("Entry")
Plugin = TypeVar("Plugin")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """A mapping from public names to plug-ins that refuses a name given twice.

    Args:
        kind: What it holds, for messages.
        group: Of entry points through which other packages add names; a package is imported when its name is asked for.

    Example:
        >>> solvers = Registry("solver")
        >>> @solvers.register("euler")
        ... class Euler: ...
    """

    def __init__(self, kind: str, *, group: str | None = None):
        self.kind = kind
        self._group = group
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
        if name not in self._entries and name in self._installed():
            entry = self._installed()[name].load()
            self._entries.setdefault(name, entry)  # a decorator in the package may have registered it already
        if name not in self._entries:
            raise unknown_name(self.kind, name, list(self))
        return self._entries[name]

    def _installed(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._group is None:
            return {}
        return {point.name: point for point in importlib.metadata.entry_points(group=self._group)}

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._entries, *self._installed()]))

    def __len__(self) -> int:
        return len(list(iter(self)))
