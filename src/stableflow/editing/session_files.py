"""A source on disk: settings as JSON, tensors beside them, and a digest that holds the two together."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stableflow.editing.fingerprint import Fingerprint
from stableflow.editing.path import Path
from stableflow.editing.source import Source
from stableflow.errors import LoadError
from stableflow.files import write_tensors, write_text_atomic
from stableflow.flow.trajectory import Trajectory
from stableflow.interventions.address import Address
from stableflow.interventions.store import KVStore
from stableflow.models.base import Conditioning
from stableflow.reading import read_json, validated

FORMAT = 2
SETTINGS_FILE, TENSORS_FILE = "source.json", "source.safetensors"


class _Fingerprint(BaseModel):
    """What a file must say of each field; the names are checked against `Fingerprint` by a test."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    checkpoint: str
    dtype: str
    prompt: str
    conditioning: str
    seed: int | None
    image: str | None
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    times: list[float] = Field(min_length=1)
    guidance_scale: float | None
    solver: dict[str, Any]
    inversion: Literal["aligned", "paper", "encoded"] | None
    nudge_scale: float = Field(gt=0)
    layers: list[int]
    modifications: list[str]
    text_length: int | None
    picture: list[int] | None = Field(min_length=2, max_length=2)
    noise: str | None


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    fingerprint: _Fingerprint
    prompts: list[str] = Field(min_length=1, max_length=1)
    shared: bool
    nfe: int = Field(ge=0)


def save_source(source: Source, folder: FilePath) -> None:
    """Write tensors first, then the settings whose digest they carry: a pair that was torn apart is refused."""
    settings = {
        "format": FORMAT,
        "fingerprint": dataclasses.asdict(source.fingerprint),
        "prompts": list(source.conditioning.prompts),
        "shared": source.store is None,
        "nfe": source.nfe,
    }
    text = json.dumps(settings, indent=2) + "\n"
    write_tensors(folder / TENSORS_FILE, _tensors(source), metadata={"settings": _digest(text)})
    write_text_atomic(folder / SETTINGS_FILE, text)


def load_source(folder: FilePath, *, device: torch.device | str) -> Source:
    """Read what `save_source` wrote; see `Source.load`."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise LoadError(f"{folder} holds no saved source: {path.name} is missing. Save one with source.save().")
    content = read_json(path, what="a session's settings")
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise LoadError(f"{path} has format {version!r}; this version reads {FORMAT}. Make the source again.")
    settings = validated(_Settings, content, where=str(path))
    tensors = _read_tensors(folder / TENSORS_FILE, str(device), _digest(path.read_text(encoding="utf-8")))
    fields = settings.fingerprint.model_dump()
    for name in ("times", "layers", "modifications", "picture"):
        fields[name] = None if fields[name] is None else tuple(fields[name])
    try:
        return _source(Fingerprint(**fields), settings, tensors)
    except (KeyError, ValueError) as error:
        raise LoadError(
            f"{folder / TENSORS_FILE} is damaged: {error} is missing or wrong. Make the source again."
        ) from error


def _source(fingerprint: Fingerprint, settings: _Settings, tensors: Mapping[str, Tensor]) -> Source:
    return Source(
        fingerprint=fingerprint,
        conditioning=Conditioning(tuple(settings.prompts), _under("conditioning/", tensors)),
        path=Path(
            Trajectory({float(t): state for t, state in _under("trajectory/", tensors).items()}),
            {float(t): offset for t, offset in _under("offset/", tensors).items()},
            None if settings.shared else _read_store(_under("kv/", tensors), _under("kv_scale/", tensors)),
        ),
        images=tensors["images"],
        alpha=tensors.get("alpha"),
        nfe=settings.nfe,
        given=tensors.get("given"),
    )


def _tensors(source: Source) -> dict[str, Tensor]:
    tensors = {"images": source.images}
    tensors |= {name: part for name, part in (("alpha", source.alpha), ("given", source.given)) if part is not None}
    tensors |= {f"trajectory/{t!r}": source.trajectory.at(t) for t in source.trajectory.times}
    tensors |= {f"offset/{t!r}": offset for t, offset in source.offsets.items()}
    tensors |= {f"conditioning/{name}": tensor for name, tensor in source.conditioning.tensors.items()}
    if source.store is not None:
        tensors |= {f"kv/{_key(address)}": features for address, features in source.store.entries.items()}
        tensors |= {f"kv_scale/{_key(address)}": scale for address, scale in source.store.scales.items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_tensors(path: FilePath, device: str, settings_digest: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            belongs_to = (file.metadata() or {}).get("settings")
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} is missing or damaged: {error}. Make the source again.") from error
    if belongs_to != settings_digest:
        raise LoadError(
            f"{path.name} and {SETTINGS_FILE} in {path.parent} do not belong together: one of them was changed, or "
            "replaced by another session's. Make the source again."
        )
    return tensors


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _key(address: Address) -> str:
    key = f"{address.t!r}/{address.occurrence}/{address.layer}/{address.part}"
    first = address.branch == "conditional" and address.attention == 0
    return key if first else f"{key}/{address.branch}/{address.attention}"


def _read_store(entries: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> KVStore:
    store = KVStore(precision="fp8" if scales else "exact")
    for key, features in entries.items():
        t, occurrence, layer, part, *rest = key.split("/")
        branch, attention = rest or ("conditional", "0")
        address = Address(
            float(t),
            int(occurrence),
            int(layer),
            "key" if part == "key" else "value",
            "conditional" if branch == "conditional" else "unconditional",
            int(attention),
        )
        store.put_kept(address, (features, scales[key]) if key in scales else (features,))
    return store
