"""Loads the networks behind metrics, and brings pictures to them as their preprocessor_config.json says."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from jaxtyping import Float
from torch import Tensor, nn

from stableflow.checks import check_path
from stableflow.errors import LoadError
from stableflow.metrics.card import MetricCard
from stableflow.reading import read_json
from stableflow.types import Images

PREPROCESSOR = "preprocessor_config.json"
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
WHAT_TO_GIVE = (
    "Pass a local folder with config.json, model.safetensors and preprocessor_config.json (a text encoder also needs "
    "tokenizer.json), or a hub id such as {example!r} while the hub can be reached."
)


@dataclass(frozen=True)
class Preprocessing:
    """Resizing, centre crop and normalisation of pictures in [0, 1].

    Args:
        shortest_edge: Resize so that the shorter side has so many pixels, keeping the aspect; None with `size`.
        size: Resize to exactly (height, width); None with `shortest_edge`.
        crop: Then cut (height, width) out of the middle; None does not.
        mean, std: Of each colour channel.
        mode: Interpolation, always with antialiasing, clamped to [0, 1] as Pillow does.
    """

    shortest_edge: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str

    def __call__(self, images: Images) -> Float[Tensor, "batch 3 new_height new_width"]:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1).to(images) for values in (self.mean, self.std))
        return (self.place(images) - mean) / std

    def place(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels new_height new_width"]:
        """Resize and crop without normalising: where a mask goes when its picture goes to the network."""
        size = self._target(*maps.shape[-2:])
        if size is not None and size != tuple(maps.shape[-2:]):
            maps = F.interpolate(maps, size=size, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        return maps if self.crop is None else _centre_crop(maps, self.crop)

    def describe(self) -> str:
        """Return it in words."""
        resize = f"shorter side to {self.shortest_edge}" if self.shortest_edge else f"to {self.size}"
        crop = f", centre crop {self.crop}" if self.crop else ""
        return f"{self.mode} {resize}{crop}, mean {self.mean}, std {self.std}"

    def _target(self, height: int, width: int) -> tuple[int, int] | None:
        if self.shortest_edge is None:
            return self.size
        short, long = sorted((height, width))
        longer = int(self.shortest_edge * long / short)
        return (self.shortest_edge, longer) if height <= width else (longer, self.shortest_edge)

    @staticmethod
    def read(name: str | Path, *, offline: bool = False) -> "Preprocessing":
        """Read what a folder or a hub id asks for.

        Raises:
            LoadError: It does not say, or asks for another interpolation than bilinear or bicubic.
        """
        try:
            path = Path(name) / PREPROCESSOR
            if not Path(name).is_dir():
                path = Path(hf_hub_download(str(name), PREPROCESSOR, local_files_only=offline))
            config = read_json(path)
            size, crop = _size(config.get("size")), _size(config.get("crop_size"))
            return Preprocessing(
                shortest_edge=size if config.get("do_resize", True) and isinstance(size, int) else None,
                size=size if config.get("do_resize", True) and isinstance(size, tuple) else None,
                crop=((crop, crop) if isinstance(crop, int) else crop) if config.get("do_center_crop", crop) else None,
                mean=tuple(config["image_mean"]),
                std=tuple(config["image_std"]),
                mode=RESAMPLE[config.get("resample", 3)],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LoadError(
                f"How {name} wants its pictures is unknown: {PREPROCESSOR} is missing or incomplete ({error!r}). It "
                "must give size, image_mean, image_std and a resample of 2 (bilinear) or 3 (bicubic)."
            ) from error


@dataclass(frozen=True, eq=False)
class Backbone:
    """A loaded network with its preprocessing.

    Args:
        name: Hub id, or the folder's name (results hold no local paths).
        weights: Digest of every weight.
    """

    model: Any
    preprocessing: Preprocessing
    name: str
    weights: str

    def on(self, facts: MetricCard) -> MetricCard:
        """Return the card of a metric that uses this network."""
        return dataclasses.replace(
            facts, preprocessing=self.preprocessing.describe(), backbone=self.name, weights=self.weights
        )

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_backbone(
    kind: Any,
    name: str | Path,
    *,
    example: str,
    device: str = "cpu",
    offline: bool = False,
    unused: tuple[str, ...] = (),
) -> Backbone:
    """Load a transformers model in float32, all of whose weights must be there.

    Args:
        kind: Its class.
        name: A local folder or a hub id.
        example: A hub id to name in messages.
        unused: Prefixes of weights that may be missing, since nothing reads them.

    Raises:
        LoadError: Files or weights are missing (transformers would make up random ones), or the hub cannot be reached.
    """
    folder = check_path("encoder", name)
    local = folder.is_dir()
    try:
        model, report = kind.from_pretrained(
            str(folder) if local else str(name),
            dtype=torch.float32,
            local_files_only=offline or local,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises what it likes on damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(f"{name} could not be loaded: {reason} {WHAT_TO_GIVE.format(example=example)}") from error
    lost = [key for key in report["missing_keys"] if not key.startswith(unused)]
    if lost or report["mismatched_keys"]:
        raise LoadError(
            f"{name} lacks weights of {kind.__name__}, or has them in other shapes: {sorted(map(str, lost))[:3]} "
            f"{sorted(map(str, report['mismatched_keys']))[:3]}. {WHAT_TO_GIVE.format(example=example)}"
        )
    model = model.eval().requires_grad_(False).to(device)
    return Backbone(
        model,
        Preprocessing.read(folder if local else name, offline=offline),
        folder.resolve().name if local else str(name),
        weights_hash(model),
    )


def weights_hash(module: nn.Module) -> str:
    """Return a digest of every weight's name, type and value."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy() if tensor.ndim else _scalar(tensor))
    return digest.hexdigest()[:16]


def _scalar(tensor: Tensor) -> bytes:
    return str(tensor.item()).encode()


def _size(value: Any) -> int | tuple[int, int] | None:
    """The shorter side, or (height, width), in any of the ways in which configs give it."""
    if isinstance(value, dict):
        return value["shortest_edge"] if "shortest_edge" in value else (value["height"], value["width"])
    return value


def _centre_crop(maps: Tensor, crop: tuple[int, int]) -> Tensor:
    height, width = maps.shape[-2:]
    if height < crop[0] or width < crop[1]:
        raise LoadError(
            f"{PREPROCESSOR} cuts {crop} out of pictures that it makes {height}x{width} large; size must be at least "
            "crop_size there."
        )
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    return maps[..., top : top + crop[0], left : left + crop[1]]
