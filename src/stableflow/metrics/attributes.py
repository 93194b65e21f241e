"""Reads the attributes of a synthetic scene back from its picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stableflow.errors import LoadError
from stableflow.files import replacing_folder
from stableflow.reading import read_json
from stableflow.types import Images


class AttributeClassifier(nn.Module):
    """A small convolutional network with one head an attribute.

    Args:
        heads: Attribute names and their values, in the order of the logits.
        channels: Of the convolutions, each of which halves the picture.
        size: Pixels on a side of what the network sees.
    """

    def __init__(self, heads: Mapping[str, Sequence[str]], channels: Sequence[int] = (32, 64, 96, 128), size: int = 64):
        super().__init__()
        self.values = {name: tuple(values) for name, values in heads.items()}
        self.channels, self.size = tuple(channels), size
        layers: list[nn.Module] = []
        for before, after in zip((3, *self.channels), self.channels):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        side = size // 2 ** len(self.channels)
        dense = [nn.Linear(self.channels[-1] * side**2, 256), nn.BatchNorm1d(256), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), *dense)
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in self.values.items()})

    def features(self, images: Images) -> Float[Tensor, "batch 256"]:
        """Return what the heads read, of pictures in [0, 1] of any size."""
        resized = F.interpolate(
            images, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )
        return self.trunk(resized * 2 - 1)

    def forward(self, images: Images) -> dict[str, Tensor]:
        """Return the logits of every attribute, (batch, values)."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Images) -> list[dict[str, str]]:
        """Return the most likely value of every attribute of every picture."""
        choices = {name: logits.argmax(1).tolist() for name, logits in self(images).items()}
        return [{name: self.values[name][chosen[i]] for name, chosen in choices.items()} for i in range(len(images))]

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        config = {"heads": self.values, "channels": self.channels, "size": self.size}
        halves = {name: t.half() if t.is_floating_point() else t for name, t in self.state_dict().items()}
        with replacing_folder(folder) as temporary:
            (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            save_file(halves, temporary / "model.safetensors")

    @staticmethod
    def load(folder: Path) -> "AttributeClassifier":
        """Read what `save` wrote, ready to be used."""
        try:
            config = read_json(folder / "config.json")
            model = AttributeClassifier(config["heads"], config["channels"], config.get("size", 64))
            state = load_file(folder / "model.safetensors")
            model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise LoadError(f"{folder} holds no attribute classifier: {error}") from error
        return model.eval()
