"""Kept sources: what makes the second edit of a picture quick. Bounded by number, bytes and time."""

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from stableflow.app.limits import MINUTE, Limits
from stableflow.editing import Editor
from stableflow.editing.source import Source
from stableflow.interventions.store import KVStore

Key = tuple[str, Hashable]  # whose, and made how


class Shelf:
    """Sources by visitor and settings; the least used leave first."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._kept: OrderedDict[Key, tuple[Source, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Source | None:
        """Return a source that is kept, and count it as used."""
        with self._lock:
            if key not in self._kept:
                return None
            source, _ = self._kept.pop(key)
            self._kept[key] = source, time.monotonic()
            return source

    def put(self, key: Key, source: Source) -> None:
        """Keep a source; others make room for it."""
        with self._lock:
            self._kept[key] = source, time.monotonic()
            self._make_room(key)

    def drop(self, owner: str) -> None:
        """Forget a visitor's sources."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == owner]:
                del self._kept[key]

    def sweep(self) -> None:
        """Forget what was not used for long."""
        oldest = time.monotonic() - self._limits.idle_minutes * MINUTE
        with self._lock:
            for key in [key for key, (_, used) in self._kept.items() if used < oldest]:
                del self._kept[key]

    def num_bytes(self) -> int:
        """Return what all sources take, with what editors keep with them."""
        return sum(bytes_of(source) for source, _ in list(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)

    def _make_room(self, newest: Key) -> None:
        own = [key for key in self._kept if key[0] == newest[0]]
        for key in own[: max(0, len(own) - self._limits.sources)]:
            del self._kept[key]
        while len(self._kept) > 1 and self.num_bytes() > self._limits.source_bytes:
            self._kept.popitem(last=False)


def bytes_of(value: Any, seen: set[int] | None = None) -> int:
    """Return the bytes of all tensors within a value, each once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, Editor):  # it holds the model, which nobody's source takes
        return 0
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, KVStore):
        return value.num_bytes
    if isinstance(value, Mapping):
        return sum(bytes_of(part, seen) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(bytes_of(part, seen) for part in value)
    if dataclasses.is_dataclass(value) or type(value).__module__.startswith("stableflow."):
        return sum(bytes_of(part, seen) for part in vars(value).values()) if hasattr(value, "__dict__") else 0
    return 0
