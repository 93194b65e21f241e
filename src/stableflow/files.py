"""Files and folders that appear whole or not at all: written aside, synced, renamed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from stableflow.errors import InputError, OutputError, StableFlowError

ASIDE = ".part"  # how the names of unfinished files end
STALE = 3600.0  # seconds after which an unfinished file is what a killed process left
WRITERS_OF_TORCH = ("PytorchStreamWriter", "inline_container", "unexpected pos", "No space left")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on leaving it takes the name `path`, on failure it is removed.

    Raises:
        OutputError: The folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=ASIDE, dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _writing(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to fill; on leaving it takes the name `path`, on failure it is removed.

    A folder that was there before is set aside and deleted at the very end.

    Raises:
        OutputError: It cannot be written, or the disk is full.
    """
    path = Path(path)
    former = path.with_name(f".{path.name[:100]}.former")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if former.exists() and not path.exists():
            former.rename(path)  # a process was killed between the two renames below
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", suffix=ASIDE, dir=path.parent))
    try:
        with _writing(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            temporary.chmod(0o777 & ~_umask())
            shutil.rmtree(former, ignore_errors=True)
            if path.exists():
                path.rename(former)
            temporary.rename(path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True) if path.exists() else None


def check_writable(folder: str | Path) -> None:
    """Raise OutputError unless files can be written to this folder; makes it if it is missing.

    What killed processes left unfinished in it is removed.
    """
    folder = Path(folder)
    with replacing(folder / f".writable-{os.getpid()}") as temporary:
        temporary.touch()
    (folder / f".writable-{os.getpid()}").unlink(missing_ok=True)
    for left in folder.glob(f".*{ASIDE}"):
        with suppress(OSError):
            if left.is_file() and time.time() - left.stat().st_mtime > STALE:
                left.unlink()


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
        save_file(dict(tensors), temporary, metadata=dict(metadata or {}))


def write_text_once(path: str | Path, text: str) -> bool:
    """Write UTF-8 text unless the file is there; returns whether it was written.

    Of several processes that try at once, one writes.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=ASIDE, dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            try:
                os.link(name, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                if path.exists():
                    return False
                Path(name).replace(path)
            _sync_folder(path.parent)
            return True
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def only_process(path: str | Path, what: str) -> Iterator[None]:
    """Hold a lock file; a process that ends in any way lets go of it.

    Args:
        what: Is running, for the message.

    Raises:
        OutputError: Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with _writing(Path(path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"Another process runs {what} in {Path(path).parent} already. Wait for it, or choose another folder."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a full disk or a folder without permission raises into one error."""
    try:
        yield
    except StableFlowError:
        raise
    except (OSError, SafetensorError) as error:
        raise _cannot_write(path, error) from error
    except RuntimeError as error:
        if not any(mark in str(error) for mark in WRITERS_OF_TORCH):
            raise
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return OutputError(
        f"Cannot write {path}: {reason}. Free some space or choose another output folder; nothing was left "
        "half-written."
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            getattr(os, "fdatasync", os.fsync)(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
