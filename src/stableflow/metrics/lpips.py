"""LPIPS: distance of deep features, weighted by how much people notice each."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stableflow.errors import InputError, LoadError
from stableflow.metrics.backbone import weights_hash
from stableflow.metrics.card import METRICS, Mask, MetricCard, PromptPairs
from stableflow.metrics.inputs import check_pair, mask_weights, masked_mean, share_of_cells
from stableflow.types import Images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
EPSILON = 1e-10
MIN_SIDE = 32  # pixels
TRUNK_HELP = (
    "It must be a safetensors file of AlexNet or VGG16 with torchvision's names (features.0.weight ...). From the file "
    "that torchvision publishes: "
    "safetensors.torch.save_file(torch.load('alexnet.pth', weights_only=True), 'alexnet.safetensors')."
)
LINEAR_HELP = (
    "It must be a safetensors file with one weight (1, channels, 1, 1) for each of the 5 taps, named lin0... to "
    "lin4..., as in the file that the authors of LPIPS publish for this trunk (alex.pth, vgg.pth); convert it likewise."
)


@dataclass(frozen=True)
class Trunk:
    """Layers of a network up to its last tap, in torchvision's numbering.

    Args:
        plan: A number is a 3x3 convolution of so many channels with ReLU, a tuple one of (channels, kernel, stride,
            padding), "pool" a maximum.
        pool: Kernel and stride of the pooling.
        taps: Places after which features are read.
    """

    name: str
    plan: Sequence[int | tuple[int, int, int, int] | str]
    pool: tuple[int, int]
    taps: tuple[int, ...]

    def build(self) -> nn.Sequential:
        """Return the network, its weights yet to be loaded."""
        layers: list[nn.Module] = []
        channels = 3
        for item in self.plan:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(*self.pool))
                continue
            out, kernel, stride, padding = item if isinstance(item, tuple) else (item, 3, 1, 1)
            layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.ReLU()]
            channels = out
        return nn.Sequential(*layers)


ALEXNET = Trunk(
    "AlexNet", [(64, 11, 4, 2), "pool", (192, 5, 1, 2), "pool", 384, 256, 256], (3, 2), (1, 4, 7, 9, 11)
)  # fmt: skip
VGG16 = Trunk(
    "VGG16",
    [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512],
    (2, 2),
    (3, 8, 15, 22, 29),
)


@METRICS.register("lpips")
@dataclass(frozen=True, eq=False)
class LPIPS:
    """d = sum over taps of the mean over places of sum over channels w_c (f_c - g_c)^2.

    f and g are the features of both pictures at a tap, scaled to unit length over channels at every place.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018),
    arXiv:1801.03924, equation 1.
    """

    trunk: Trunk
    features: nn.Sequential
    linear: tuple[Float[Tensor, "1 _ 1 1"], ...]
    weights: str
    facts: ClassVar = MetricCard(
        "lpips",
        0.0,
        float("inf"),
        False,
        f"own size, mean {MEAN}, std {STD}",
        "mean over places at every tap, weighted by the mask's share of each; features still see a little around them",
    )

    @staticmethod
    def load(trunk: str | Path, linear: str | Path, *, device: str = "cpu") -> "LPIPS":
        """Read the weights; nothing is downloaded.

        Args:
            trunk: AlexNet or VGG16 trained on ImageNet, torchvision's names, safetensors.
            linear: The weights w that LPIPS was trained to, for that trunk, safetensors.

        Raises:
            LoadError: A file is missing or of something else; says what to give.
        """
        weights = _read(trunk, TRUNK_HELP)
        kind = _recognise(weights, trunk)
        features = kind.build()
        own = {name.removeprefix("features."): t for name, t in weights.items() if name.startswith("features.")}
        wanted = features.state_dict()
        wrong = [name for name, t in wanted.items() if name not in own or own[name].shape != t.shape]
        if wrong:
            raise LoadError(
                f"{trunk} lacks features.{wrong[0]} of {kind.name}, or has it in another shape. {TRUNK_HELP}"
            )
        features.load_state_dict({name: own[name].float() for name in wanted})
        weighting = _linear(_read(linear, LINEAR_HELP), features, kind, linear)
        digest = hashlib.sha256((weights_hash(features) + weights_hash(nn.ParameterList(weighting))).encode())
        return LPIPS(
            kind,
            features.eval().requires_grad_(False).to(device),
            tuple(weight.to(device) for weight in weighting),
            digest.hexdigest()[:16],
        )

    @property
    def card(self) -> MetricCard:
        return dataclasses.replace(self.facts, backbone=self.trunk.name, weights=self.weights)

    @torch.no_grad()
    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        if min(source.shape[-2:]) < MIN_SIDE:
            raise InputError(f"LPIPS needs pictures of at least {MIN_SIDE} pixels a side, got {tuple(source.shape)}.")
        weights = mask_weights(mask, source)
        total = torch.zeros(len(source))
        for w, f, g in zip(self.linear, self._taps(source), self._taps(edit)):
            distance = ((f - g).square() * w).sum(1, keepdim=True).cpu()
            seen = None if weights is None else share_of_cells(weights, *distance.shape[-2:])
            total = total + masked_mean(distance, seen)
        return total

    def _taps(self, images: Images) -> list[Tensor]:
        """Features of unit length over channels, tap by tap."""
        device = self.linear[0].device
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
        x = (images.to(device, torch.float32) - mean) / std
        taps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.trunk.taps:
                taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON))
        return taps


def _read(path: str | Path, help_text: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoadError(f"{path} cannot be read as weights of LPIPS: {error}. {help_text}") from error


def _recognise(weights: Mapping[str, Tensor], path: str | Path) -> Trunk:
    first = weights.get("features.0.weight")
    shapes = {(64, 3, 11, 11): ALEXNET, (64, 3, 3, 3): VGG16}
    kind = None if first is None else next((t for shape, t in shapes.items() if shape == tuple(first.shape)), None)
    if kind is None:
        raise LoadError(f"{path} holds neither AlexNet nor VGG16. {TRUNK_HELP}")
    return kind


def _linear(weights: Mapping[str, Tensor], features: nn.Sequential, trunk: Trunk, path: str | Path) -> list[Tensor]:
    """The weight of every tap, in order."""
    numbered = {int(match[1]): t for name, t in weights.items() if (match := re.search(r"lin(?:s\.)?(\d)\.", name))}
    shapes = [(1, _channels(features, tap), 1, 1) for tap in trunk.taps]
    if [tuple(numbered[i].shape) if i in numbered else None for i in range(len(shapes))] != shapes:
        raise LoadError(f"{path} does not fit {trunk.name}, whose taps want {shapes}. {LINEAR_HELP}")
    return [numbered[i].float() for i in range(len(shapes))]


def _channels(features: nn.Sequential, tap: int) -> int:
    convolution = features[tap - 1]
    assert isinstance(convolution, nn.Conv2d)
    return convolution.out_channels
