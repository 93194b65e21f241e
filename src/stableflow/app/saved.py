"""Sources on disk: a session that has left the memory, or whose process has gone, need not be made again."""

import hashlib
import shutil
from pathlib import Path

from stableflow.app.shelf import Key
from stableflow.editing.source import Source
from stableflow.errors import LoadError
from stableflow.models.base import FlowModel


class SavedSources:
    """Sources by visitor and settings, in a folder that several processes may share.

    Args:
        folder: Holds a folder a source, named by a digest.
        most: Bytes; those used longest ago go first. At least the newest stays.
    """

    def __init__(self, folder: Path, most: int):
        self._folder, self._most = folder, most

    def get(self, key: Key, model: FlowModel) -> Source | None:
        """Return a source of this very checkpoint that is there and whole."""
        folder = self._of(key, model.checkpoint_hash())
        try:
            source = Source.load(folder, device=model.device)
        except LoadError:  # none, half-written by another process, or of another version
            return None
        folder.touch()
        return source

    def put(self, key: Key, source: Source) -> None:
        """Write a source, and make room for it."""
        source.save(self._of(key, source.fingerprint.checkpoint))
        kept = sorted(self._folder.glob("*"), key=_used)
        total = sum(map(_bytes, kept))
        for folder in kept[:-1]:
            if total <= self._most:
                return
            total -= _bytes(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def _of(self, key: Key, checkpoint: str) -> Path:
        return self._folder / hashlib.sha256(repr((key, checkpoint)).encode()).hexdigest()[:32]


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # deleted meanwhile
        return 0.0


def _bytes(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0
