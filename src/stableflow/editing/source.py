"""A source is a session: everything that its edits need, kept, saved and loaded."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stableflow.editing.fingerprint import Fingerprint
from stableflow.errors import LoadError
from stableflow.files import replacing, write_text_atomic
from stableflow.flow.inversion import unnudge
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.interventions.address import Address
from stableflow.interventions.store import KVStore
from stableflow.models.base import Conditioning
from stableflow.types import Images, Latents

FORMAT = 1
SETTINGS_FILE, TENSORS_FILE = "source.json", "source.safetensors"


@dataclass(frozen=True, eq=False)
class Source:
    """A generated or inverted picture with its path from noise to image.

    Args:
        fingerprint: The settings that all of this belongs to.
        conditioning: Its encoded prompt.
        trajectory: Its states by flow time, float32, (1, channels, latent_height, latent_width).
        offsets: What aligned replay adds at each time; empty for a generated source and under inversion="paper".
        store: Its image keys and values; None when the source shares the batch with its edits.
        images: The picture as the model draws it, in [0, 1], padding cut off.
        alpha: Opacity of the given picture, if it had any.
        nfe: Model evaluations that making it took.
    """

    fingerprint: Fingerprint
    conditioning: Conditioning
    trajectory: Trajectory
    offsets: Mapping[float, Tensor]
    store: KVStore | None
    images: Images
    alpha: Float[Tensor, "height width"] | None
    nfe: int

    @property
    def grid(self) -> TimeGrid:
        """The flow times from noise to image."""
        return TimeGrid(self.fingerprint.times)

    @property
    def noise(self) -> Latents:
        """Its state at the start of sampling, float32."""
        return self.trajectory.at(self.fingerprint.times[0])

    @property
    def latents(self) -> Latents:
        """Its final latents, nudging undone, float32."""
        return unnudge(self.trajectory.at(0.0), self.fingerprint.nudge_scale)

    def to(self, device: torch.device | str) -> "Source":
        """Return the source with states and conditioning on a device; keys and values stay where they are."""
        return dataclasses.replace(
            self,
            conditioning=self.conditioning.to(device),
            trajectory=self.trajectory.to(device),
            offsets={t: offset.to(device) for t, offset in self.offsets.items()},
        )

    def save(self, folder: str | Path) -> None:
        """Write the session as `source.safetensors` and `source.json`; each appears whole or not at all."""
        folder = Path(folder)
        with replacing(folder / TENSORS_FILE) as path:
            save_file(self._tensors(), path)
        settings = {
            "format": FORMAT,
            "fingerprint": dataclasses.asdict(self.fingerprint),
            "prompts": list(self.conditioning.prompts),
            "shared": self.store is None,
            "nfe": self.nfe,
        }
        write_text_atomic(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"images": self.images}
        if self.alpha is not None:
            tensors["alpha"] = self.alpha
        tensors |= {f"trajectory/{t!r}": self.trajectory.at(t) for t in self.trajectory.times}
        tensors |= {f"offset/{t!r}": offset for t, offset in self.offsets.items()}
        tensors |= {f"conditioning/{name}": tensor for name, tensor in self.conditioning.tensors.items()}
        if self.store is not None:
            tensors |= {f"kv/{_key(address)}": features for address, features in self.store.entries.items()}
            tensors |= {f"kv_scale/{_key(address)}": scale for address, scale in self.store.scales.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    @staticmethod
    def load(folder: str | Path, *, device: torch.device | str = "cpu") -> "Source":
        """Read a saved session.

        Args:
            folder: Where `save` wrote it.
            device: Where its tensors go; the model's device makes edits quickest.

        Raises:
            LoadError: A file is missing, damaged or of another version.
        """
        folder = Path(folder)
        settings = _read_settings(folder / SETTINGS_FILE)
        tensors = _read_tensors(folder / TENSORS_FILE, str(device))
        fields = settings["fingerprint"]
        for name in ("times", "layers", "modifications"):
            fields[name] = tuple(fields[name])
        conditioning = Conditioning(tuple(settings["prompts"]), _under("conditioning/", tensors))
        return Source(
            fingerprint=Fingerprint(**fields),
            conditioning=conditioning,
            trajectory=Trajectory({float(t): state for t, state in _under("trajectory/", tensors).items()}),
            offsets={float(t): offset for t, offset in _under("offset/", tensors).items()},
            store=None if settings["shared"] else _read_store(_under("kv/", tensors), _under("kv_scale/", tensors)),
            images=tensors["images"],
            alpha=tensors.get("alpha"),
            nfe=settings["nfe"],
        )


def _read_settings(path: Path) -> dict:
    if not path.is_file():
        raise LoadError(f"{path.parent} holds no saved source: {path.name} is missing. Save one with source.save().")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{path} is damaged: {error}. Make the source again.") from error
    if settings.get("format") != FORMAT:
        raise LoadError(f"{path} has format {settings.get('format')!r}; this version reads {FORMAT}.")
    return settings


def _read_tensors(path: Path, device: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} is missing or damaged: {error}. Make the source again.") from error


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
