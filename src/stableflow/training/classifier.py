"""Stage 4: the attribute classifier, trained on renders to read captioned and hidden attributes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stableflow.metrics.attributes import AttributeClassifier
from stableflow.scenes import HIDDEN, Scene, attributes
from stableflow.training.data import SceneData
from stableflow.training.loop import Progress, draw_index, learning_rate, step_generator
from stableflow.training.parallel import World

log = logging.getLogger(__name__)


def heads(layers: int = 2) -> dict[str, tuple[str, ...]]:
    """Return what there is to read in a scene of such a world: captioned and hidden attributes and their values."""
    return {**attributes(layers), **HIDDEN}


@dataclass(frozen=True)
class ClassifierSettings:
    """Shape and training of the classifier.

    Args:
        size: Pixels on a side of what it sees; pictures of another size are resized.
        channels: Of its convolutions, each of which halves the picture.
        noise: The largest deviation of the noise that pictures are blurred with.
    """

    size: int = 64
    channels: tuple[int, ...] = (32, 64, 96, 128)
    num_steps: int = 2200
    batch: int = 96
    peak: float = 3e-3
    noise: float = 0.08
    seed: int = 2


def train_classifier(folder: Path, data: SceneData, settings: ClassifierSettings, world: World) -> AttributeClassifier:
    """Train in one process and save to folder / "classifier"."""
    torch.manual_seed(settings.seed)
    model = AttributeClassifier(heads(data.layers), settings.channels, settings.size).to(world.device).train()
    labels = label_tensors(data.scenes(), data.layers)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.peak, weight_decay=1e-2)
    progress = Progress("classifier", settings.num_steps, world)
    for step in range(settings.num_steps):
        generator = step_generator(settings.seed, step, world)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings.num_steps, settings.peak, decay_from=0.1)
        index = draw_index(len(data.images), settings.batch, generator)
        images = degrade(data.pixels(index) / 2 + 0.5, settings.noise, step, generator).to(world.device)
        with torch.autocast(world.device.type, torch.bfloat16):
            logits = model(images)
        losses = [F.cross_entropy(logits[name].float(), labels[name][index].to(world.device)) for name in labels]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress.tell(step, loss.item())
    model.eval().save(folder / "classifier")
    return AttributeClassifier.load(folder / "classifier").to(world.device)


def label_tensors(scenes: list[Scene], layers: int = 2) -> dict[str, Tensor]:
    """Return each attribute's value of each scene as its place among the values."""
    return {
        name: torch.tensor([values.index(getattr(scene, name)) for scene in scenes])
        for name, values in heads(layers).items()
    }


def degrade(images: Tensor, noise: float, step: int, generator: torch.Generator) -> Tensor:
    """Noise of random strength, and a blur every third step: generated pictures are not as clean as renders."""
    strength = noise * torch.rand(len(images), 1, 1, 1, generator=generator)
    images = images + strength * torch.randn(images.shape, generator=generator)
    if step % 3 == 0:
        images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return images


@torch.no_grad()
def ceiling(model: AttributeClassifier, data: SceneData) -> dict[str, float]:
    """Return the accuracy of every head on held-out renders."""
    scenes = data.scenes(validation=True)
    images = data.pixels(torch.arange(len(scenes))) / 2 + 0.5
    readings = [reading for part in images.split(200) for reading in model.read(part)]
    return {
        name: sum(reading[name] == getattr(scene, name) for reading, scene in zip(readings, scenes)) / len(scenes)
        for name in heads(data.layers)
    }
