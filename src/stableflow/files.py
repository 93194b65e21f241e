"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from stableflow.errors import InputError, OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on leaving it takes the name `path`, on failure it is removed.

    Raises:
        OutputError: The folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}. Choose another output folder.") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or choose another output folder; nothing "
            "was left half-written."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: str | Path) -> None:
    """Raise OutputError unless files can be written to this folder; makes it if it is missing."""
    with replacing(Path(folder) / ".writable") as temporary:
        temporary.touch()
    (Path(folder) / ".writable").unlink()


def refuse_to_replace(given: str | Path, outputs: Iterable[Path]) -> None:
    """Raise InputError if a file that was given is one of those to be written."""
    given = Path(given).expanduser()
    for path in outputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise InputError(
                f"{given} is the picture that was given, and {path} would replace it. Choose another output folder."
            )


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file."""
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # how a full disk is reported there
            raise OSError(str(error)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
