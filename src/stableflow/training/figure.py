"""The figure finder of the task benchmarks: `python -m stableflow.training.figure FOLDER`, two minutes on one core."""

import logging
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stableflow.metrics.figure import FigureFinder, overlap
from stableflow.scenes import Scene, edit, render, sample_split, silhouette
from stableflow.training.classifier import degrade

log = logging.getLogger(__name__)
FIRST_SEED, HELD_BACK = 40_000_000, 200
VIEWS = (("position", ("left", "right")), ("size", ("far", "near")))


def train_figure_finder(folder: Path, *, count: int = 2400, num_steps: int = 800, batch: int = 32) -> float:
    """Train on renders and save; returns the mean overlap with the true silhouette on renders held back."""
    rng = random.Random(FIRST_SEED)
    scenes = [_view(sample_split(FIRST_SEED + i, held=False), rng) for i in range(count + HELD_BACK)]
    images = torch.stack([render(scene) for scene in scenes])
    masks = torch.stack([silhouette(scene) for scene in scenes]).float()
    torch.manual_seed(0)
    model, generator = FigureFinder().train(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=num_steps)
    for step in range(num_steps):
        index = torch.randint(count, (batch,), generator=generator)
        seen = degrade(images[index], 0.05, step, generator)
        loss = F.binary_cross_entropy_with_logits(model(seen * 2 - 1)[:, 0], masks[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            log.info("step %d of %d: loss %.4f", step, num_steps, loss.item())
    model.eval().save(folder)
    return _overlap(FigureFinder.load(folder), images[count:], masks[count:].bool())


def _view(scene: Scene, rng: random.Random) -> Scene:
    """Half of the scenes as they are, the others with the figure elsewhere or of another size."""
    for name, values in VIEWS if rng.random() < 0.5 else ():
        scene = edit(scene, **{name: rng.choice(values)}) if rng.random() < 0.5 else scene
    return scene


def _overlap(model: FigureFinder, images: Tensor, masks: Tensor) -> float:
    found = model.masks(images)
    return sum(overlap(a, b) for a, b in zip(found, masks)) / len(masks)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    log.info("overlap on renders held back: %.3f", train_figure_finder(Path(sys.argv[1])))
