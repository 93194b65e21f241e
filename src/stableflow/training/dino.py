"""A small DINOv2-shaped encoder for perceptual distances.

It is not self-supervised: its class token and the mean of its patch tokens learn to tell every captioned and hidden
property of a scene, which is what a distance between pictures of this world should see. The heads are then dropped.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from stableflow.scenes.world import CONTINUOUS
from stableflow.training.classifier import degrade, heads, label_tensors
from stableflow.training.data import SceneData
from stableflow.training.export import export_encoder
from stableflow.training.loop import draw_index, fit
from stableflow.training.parallel import World
from stableflow.training.start import adopt


@dataclass(frozen=True)
class DinoSettings:
    """Shape and training; `noise` is the largest deviation of the noise on the pictures."""

    width: int = 128
    layers: int = 4
    patch: int = 8
    num_steps: int = 1000
    batch: int = 96
    peak: float = 1e-3
    noise: float = 0.06
    seed: int = 5


class Reader(nn.Module):
    """An encoder with linear heads on its class token and on the mean of its patches."""

    def __init__(self, settings: DinoSettings, size: int, layers: int = 2):
        super().__init__()
        self.encoder = Dinov2Model(
            Dinov2Config(
                image_size=size,
                patch_size=settings.patch,
                hidden_size=settings.width,
                num_hidden_layers=settings.layers,
                num_attention_heads=4,
                mlp_ratio=4,
            )
        )
        outputs = sum(map(len, heads(layers).values())) + 2 * len(CONTINUOUS)
        self.class_head = nn.Linear(settings.width, outputs)
        self.patch_head = nn.Linear(settings.width, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(pixel_values=images).last_hidden_state
        return self.class_head(tokens[:, 0]), self.patch_head(tokens[:, 1:].mean(1))


def train_dino(
    folder: Path, data: SceneData, settings: DinoSettings, world: World, *, start: Path | None = None
) -> Reader:
    """Train or resume in one process; writes folder / "dinov2" in transformers' layout, float16.

    Args:
        start: An encoder's folder to go on from.
    """
    size = data.images.shape[1]
    torch.manual_seed(settings.seed)
    model = Reader(settings, size, data.layers)
    if start is not None:
        adopt(model.encoder, start)
    model = model.to(world.device).train()
    labels, circle = _targets(data, validation=False)
    sizes = [len(values) for values in heads(data.layers).values()]

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        index = draw_index(len(data.images), settings.batch, generator)
        images = degrade(data.pixels(index) / 2 + 0.5, settings.noise, step, generator) * 2 - 1
        with torch.autocast(world.device.type, torch.bfloat16):
            by_class, by_patches = model(images.to(world.device))
        chosen = {name: values[index].to(world.device) for name, values in labels.items()}
        points = circle[index].to(world.device)
        return _loss(by_class.float(), chosen, points, sizes) + _loss(by_patches.float(), chosen, points, sizes)

    fit(
        "dinov2",
        model,
        loss_of,
        num_steps=settings.num_steps,
        peak=settings.peak,
        seed=settings.seed,
        folder=folder,
        world=world,
    )
    export_encoder(model.encoder.eval(), folder / "dinov2", size=size, processor="BitImageProcessor")
    return model.float()


def _targets(data: SceneData, *, validation: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Return class labels, and the continuous properties as points on the circle they live on."""
    scenes = data.scenes(validation=validation)
    angles = 2 * math.pi * torch.tensor([[getattr(scene, name) for name in CONTINUOUS] for scene in scenes])
    return label_tensors(scenes, data.layers), torch.cat([angles.sin(), angles.cos()], dim=1)


def _loss(output: Tensor, labels: dict[str, Tensor], circle: Tensor, sizes: list[int]) -> Tensor:
    parts = output.split([*sizes, circle.shape[1]], dim=1)
    classes = torch.stack([F.cross_entropy(part, label) for part, label in zip(parts, labels.values())]).sum()
    return classes + F.mse_loss(parts[-1], circle.to(output))


@torch.no_grad()
def probe_accuracy(model: Reader, data: SceneData) -> dict[str, float]:
    """Return how often the head on the class token reads each property of held-out renders right."""
    labels, _ = _targets(data, validation=True)
    images = data.pixels(torch.arange(len(data.images)))
    outputs = torch.cat([model.eval()(part)[0] for part in images.split(200)])
    sizes = [len(values) for values in heads(data.layers).values()]
    parts = outputs.split([*sizes, 2 * len(CONTINUOUS)], dim=1)
    return {name: (part.argmax(1) == labels[name]).float().mean().item() for name, part in zip(labels, parts)}
