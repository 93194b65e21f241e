"""Renders and captions, drawn once and read from disk; the i-th scene is the same on every machine."""

import random
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from stableflow.scenes import Scene, caption, random_keep, render_pil, sample_split
from stableflow.training.tokens import tokenize

CAPTIONS_PER_SCENE = 5
VALIDATION_SEED = 10_000_000  # scenes from here on are never trained on


@dataclass(frozen=True)
class SceneData:
    """Renders as bytes, (scenes, size, size, 3), and their captions as token ids, (scenes, captions, tokens).

    Args:
        layers: Of the world that the scenes are drawn from.
    """

    images: np.ndarray
    tokens: Tensor
    layers: int = 2

    def scenes(self, *, validation: bool = False) -> list[Scene]:
        """Return the scenes that the pictures show, of the training combinations or of the held-out ones."""
        first = VALIDATION_SEED if validation else 0
        seeds = range(first, first + len(self.images))
        return [sample_split(seed, held=validation, layers=self.layers) for seed in seeds]

    def pixels(self, index: Tensor) -> Tensor:
        """Return these pictures in [-1, 1], (batch, 3, size, size)."""
        chosen = torch.from_numpy(self.images[index.numpy()])
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


def scene_data(
    folder: Path, *, count: int, size: int, layers: int = 2, validation: bool = False, workers: int = 2
) -> SceneData:
    """Return `count` scenes of the training combinations, or of the held-out ones; drawn on the first call.

    Args:
        folder: Where the drawn data stays: size * size * 3 bytes a scene.
    """
    split = "validation" if validation else "train"
    images_path, tokens_path = folder / f"{split}-{size}-{count}.npy", folder / f"{split}-{size}-{count}-tokens.npy"
    if not (images_path.exists() and tokens_path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        first = VALIDATION_SEED if validation else 0
        jobs = [(seed, size, layers, validation) for seed in range(first, first + count)]
        partial = images_path.with_suffix(".partial")
        images = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(count, size, size, 3))
        tokens = []
        with Pool(workers) as pool:
            for i, (image, ids) in enumerate(pool.imap(_draw, jobs, chunksize=50)):
                images[i] = image
                tokens.append(ids)
        images.flush()
        np.save(tokens_path, np.stack(tokens))
        partial.rename(images_path)
    return SceneData(np.load(images_path, mmap_mode="r"), torch.from_numpy(np.load(tokens_path)), layers)


def _draw(job: tuple[int, int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
    seed, size, layers, validation = job
    scene = sample_split(seed, held=validation, layers=layers)
    rng = random.Random(f"captions {seed}")
    captions = [caption(scene, random_keep(rng, layers)) for _ in range(CAPTIONS_PER_SCENE)]
    return np.asarray(render_pil(scene, size)), np.array([tokenize(text, layers) for text in captions])
