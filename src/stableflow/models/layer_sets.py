"""Layer sets that others measured: small files by checkpoint hash, in local folders and, if asked, on the hub."""

import os
import shutil
from pathlib import Path

from stableflow.errors import LoadError
from stableflow.files import replacing
from stableflow.models.load_errors import load_errors

FOLDERS = "STABLEFLOW_LAYERS"
"""Environment variable of folders with layer sets, looked through in order; the first takes what is fetched."""

LARGEST = 1_000_000  # bytes of one file
IN_REPOSITORY = "layers"


def layer_folders() -> list[Path]:
    """Return the folders that layer sets are looked for in; they need not exist."""
    if os.environ.get(FOLDERS):
        return [Path(folder).expanduser() for folder in os.environ[FOLDERS].split(os.pathsep) if folder]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [Path(cache) / "stableflow" / "layers"]


def local_sets() -> list[Path]:
    """Return the files of layer sets in local folders, the first folder's first."""
    return [file for folder in layer_folders() if folder.is_dir() for file in sorted(folder.glob("*.json"))]


def fetch_set(repository: str, checkpoint: str, *, offline: bool = False) -> Path | None:
    """Fetch the layer set of a checkpoint into the first local folder; None where the repository has none.

    Args:
        repository: A hub id whose folder `layers` holds one file a checkpoint, as `stableflow vital push` makes it.
        checkpoint: The model's `checkpoint_hash`.
        offline: Use what is in the hub's local cache.

    Raises:
        LoadError: The repository is not there or out of reach, or the file is too large to be one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with load_errors(repository, what="the layer sets (layer_sets=)"):
        try:
            found = Path(hf_hub_download(repository, f"{IN_REPOSITORY}/{checkpoint}.json", local_files_only=offline))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None
    if found.stat().st_size > LARGEST:
        raise LoadError(f"{repository}: {found.name} has {found.stat().st_size} bytes; a layer set has a few thousand.")
    return keep(found, checkpoint)


def keep(file: Path, checkpoint: str) -> Path:
    """Copy a layer set into the first local folder, under its checkpoint's hash."""
    place = layer_folders()[0] / f"{checkpoint}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as temporary:
        shutil.copyfile(file, temporary)
    return place
