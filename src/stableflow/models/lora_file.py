"""The file of a LoRA: found as a path, in a folder or on the hub, and read. Pickles are never opened."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stableflow.checks import check_path
from stableflow.errors import LoadError
from stableflow.models.load_errors import first_line, load_errors, some

USUAL = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
WHAT = "the LoRA (lora=)"


def find_lora(lora: str | Path, *, offline: bool) -> Path:
    """Return the .safetensors file of a LoRA.

    Args:
        lora: A file, a folder that holds one, a hub id, or a hub id and the name of a file in it.

    Raises:
        LoadError: There is none, or there are several; names what was given.
    """
    path = check_path("lora", lora)
    if path.is_dir():
        return path / _choose([file.name for file in path.glob("*") if file.is_file()], str(path))
    if path.exists():
        if path.suffix != ".safetensors":
            raise LoadError(
                f"The LoRA {path} (lora=) does not end in .safetensors; other formats are pickles, which could run "
                "code, or are not read."
            )
        return path
    parts = str(lora).split("/")
    if isinstance(lora, Path) or len(parts) < 2 or "" in parts or str(lora)[0] in "./~" or "\\" in str(lora):
        raise LoadError(f"There is no LoRA at {lora} (lora=): no such file or folder. Check the path.")
    if len(parts) == 2 and path.suffix == ".safetensors":
        raise LoadError(f"There is no LoRA at {lora} (lora=): no such file. Check the path.")
    return _from_hub("/".join(parts[:2]), "/".join(parts[2:]), offline)


def _from_hub(repository: str, file: str, offline: bool) -> Path:
    with load_errors(repository, what=WHAT):
        if not file and offline:
            cached = [name for name in USUAL if isinstance(try_to_load_from_cache(repository, name), str)]
            file = cached[0] if cached else USUAL[0]
        elif not file:
            file = _choose(HfApi().list_repo_files(repository), repository)
        return Path(hf_hub_download(repository, file, local_files_only=offline))


def _choose(names: list[str], where: str) -> str:
    found = sorted(name for name in names if name.endswith(".safetensors"))
    usual = [name for name in USUAL if name in found]
    if usual:
        return usual[0]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LoadError(
            f"{where}, {WHAT}, holds no .safetensors file; other formats are pickles, which are not opened."
        )
    raise LoadError(f"{where}, {WHAT}, holds {len(found)} files: {some(found)}. Name the one to use.")


def read_tensors(path: Path, where: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors of a file, and peft's settings of it.

    Args:
        where: The file, for messages.

    Raises:
        LoadError: The file or its settings are damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{where} could not be loaded: it is no .safetensors file, or it is cut off ({first_line(error)}). "
            "Download it again; a web page that was saved instead of the file looks like this."
        ) from error
    beside = path.parent / "adapter_config.json"
    text = metadata.get("lora_adapter_metadata")
    try:
        if text is None and path.name == "adapter_model.safetensors" and beside.is_file():
            text = beside.read_text(encoding="utf-8")
        config = json.loads(text) if text else {}
    except (ValueError, OSError, RecursionError) as error:
        raise LoadError(f"{where}: peft's settings of it are damaged: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise LoadError(f"{where}: peft's settings of it are no mapping.")
    return state, {str(key).removeprefix("transformer."): value for key, value in config.items()}
