"""A source on disk: settings as JSON, tensors beside them, and a digest that holds the two together."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stableflow.checks import LARGEST_GUIDANCE, LARGEST_SEED, LONGEST_SIDE
from stableflow.editing.fingerprint import ENCODED, Fingerprint, digest
from stableflow.editing.path import LARGEST_NUDGE, Path
from stableflow.editing.source import Source
from stableflow.errors import LoadError, StableFlowError
from stableflow.files import write_tensors, write_text_atomic
from stableflow.flow.solvers import make_solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.interventions.address import Address
from stableflow.interventions.store import KVStore
from stableflow.models.base import Conditioning
from stableflow.reading import read_json, short, validated

FORMAT = 2
MOST_ORDERS = 720
LONGEST_TEXT = 1_000_000  # tokens
SETTINGS_FILE, TENSORS_FILE = "source.json", "source.safetensors"


Time = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**31)]


class _Fingerprint(BaseModel):
    """What a file must say of each field; the names are checked against `Fingerprint` by a test."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    checkpoint: str
    dtype: str
    prompt: str
    conditioning: str
    seed: int | None = Field(ge=0, le=LARGEST_SEED)
    image: str | None
    height: int = Field(ge=1, le=LONGEST_SIDE)
    width: int = Field(ge=1, le=LONGEST_SIDE)
    times: list[Time] = Field(min_length=1, max_length=10_001)
    guidance_scale: float | None = Field(ge=0, le=LARGEST_GUIDANCE)
    solver: dict[str, Any]
    inversion: Literal["aligned", "paper", "encoded"] | None
    nudge_scale: float = Field(gt=0, le=LARGEST_NUDGE)
    layers: list[Count]
    modifications: list[str]
    text_length: int | None = Field(ge=1, le=LONGEST_TEXT)
    picture: list[Count] | None = Field(min_length=2, max_length=2)
    noise: str | None


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    fingerprint: _Fingerprint
    prompts: list[str] = Field(min_length=1, max_length=1)
    shared: bool
    nfe: int = Field(ge=0, le=2**40)


def save_source(source: Source, folder: FilePath) -> None:
    """Write tensors first, then the settings whose digest they carry: a pair that was torn apart is refused."""
    text = settings_text(source)
    write_tensors(folder / TENSORS_FILE, _tensors(source), metadata={"settings": _digest(text)})
    write_text_atomic(folder / SETTINGS_FILE, text)


def settings_text(source: Source) -> str:
    """Return what a source's settings file holds."""
    settings = {
        "format": FORMAT,
        "fingerprint": dataclasses.asdict(source.fingerprint),
        "prompts": list(source.conditioning.prompts),
        "shared": source.store is None,
        "nfe": source.nfe,
    }
    return json.dumps(settings, indent=2) + "\n"


def load_source(folder: FilePath, *, device: torch.device | str) -> Source:
    """Read what `save_source` wrote; see `Source.load`."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise LoadError(f"{folder} holds no saved source: {path.name} is missing. Save one with source.save().")
    content = read_json(path, what="a session's settings")
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise LoadError(f"{path} has format {short(version)}; this version reads {FORMAT}. Make the source again.")
    settings = validated(_Settings, content, where=str(path))
    tensors = _read_tensors(folder / TENSORS_FILE, str(device), _digest(path.read_text(encoding="utf-8")))
    fields = settings.fingerprint.model_dump()
    _check_settings(settings, str(path))
    for name in ("times", "layers", "modifications", "picture"):
        fields[name] = None if fields[name] is None else tuple(fields[name])
    try:
        source = _source(Fingerprint(**fields), settings, tensors)
        _check_tensors(source)
        return source
    except (KeyError, ValueError, IndexError, RuntimeError, TypeError, StableFlowError) as error:
        raise LoadError(
            f"{folder / TENSORS_FILE} is damaged: {error} is missing or wrong. Make the source again."
        ) from error


def _check_settings(settings: _Settings, where: str) -> None:
    """Raise LoadError unless the settings go together: a solver that is known, times that fall, one prompt."""
    made = settings.fingerprint
    try:
        if made.inversion != ENCODED:
            make_solver(made.solver)
            TimeGrid(tuple(made.times))
    except StableFlowError as error:
        raise LoadError(f"{where}: fingerprint: {error}") from error
    if made.times[-1] != 0.0:
        raise LoadError(f"{where}: fingerprint.times must fall from noise to the image (0), got {short(made.times)}.")
    if settings.prompts != [made.prompt]:
        raise LoadError(f"{where}: prompts must hold the fingerprint's prompt, got {short(settings.prompts)}.")
    if (made.image is None) != (made.picture is None):
        raise LoadError(f"{where}: fingerprint.picture goes with fingerprint.image; one of them is missing.")
    if made.image is None and made.seed is None and made.noise is None:
        raise LoadError(f"{where}: fingerprint.seed, image and noise are all missing.")
    if made.image is None and made.inversion is not None:
        raise LoadError(f"{where}: fingerprint.image is missing, and its picture was inverted.")


def _check_tensors(source: Source) -> None:
    """Raise unless the tensors are those that the settings describe."""
    made, images = source.fingerprint, source.images
    size = made.picture or (made.height, made.width)
    _check_shape("images", images, (1, 3, *size))
    if source.alpha is not None:
        _check_shape("alpha", source.alpha, size)
    if source.given is not None:
        _check_shape("given", source.given, (1, 3, *size))
    states = [source.path.at(t) for t in made.times]
    for state in [*states, *source.offsets.values()]:
        _check_shape("a state of the trajectory", state, (1, *states[0].shape[1:]))
        if state.ndim != 4:
            raise ValueError("a state of the trajectory, with 4 dimensions,")
    if made.inversion == "aligned" and set(source.offsets) != set(made.times[:-1]):
        raise ValueError("an offset of aligned replay")
    for name, tensor in source.conditioning.tensors.items():
        if tensor.ndim < 1 or tensor.shape[0] != 1:
            raise ValueError(f"conditioning/{name}, one row,")
    if made.conditioning not in _digests(source.conditioning):
        raise ValueError("conditioning/..., the prompt's embeddings,")
    if source.store is not None:
        kept = source.store.entries
        if source.store.layers != made.layers or len({tensor.shape for tensor in kept.values()}) != 1:
            raise ValueError("kv/..., a layer's keys or values,")
        if any(tensor.ndim != 3 or tensor.shape[0] != 1 for tensor in kept.values()):
            raise ValueError("kv/..., (1, image_tokens, dim),")


def _digests(conditioning: Conditioning) -> set[str]:
    """The digests of a conditioning by every order that its tensors, some of a prompt's, may have been encoded in."""
    tensors = list(conditioning.tensors.values())
    return {digest(*ordered) for ordered in itertools.islice(itertools.permutations(tensors), MOST_ORDERS)}


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != tuple(shape) or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name}, finite floats of shape {tuple(shape)},")


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
    if set(scales) - set(entries):
        raise ValueError("kv_scale/..., for which there are no keys or values,")
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
