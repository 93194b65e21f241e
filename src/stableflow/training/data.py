"""Renders and captions, drawn once and read from disk; the i-th scene is the same on every machine."""

import os
import random
import threading
import time
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stableflow.errors import LoadError
from stableflow.files import replacing
from stableflow.scenes import caption, random_keep, render_pil, sample_split
from stableflow.training.tokens import tokenize

CAPTIONS_PER_SCENE = 5
VALIDATION_SEED = 10_000_000  # scenes from here on are never trained on


@dataclass(frozen=True)
class SceneData:
    """Renders as bytes, (scenes, size, size, 3), and their captions as token ids, (scenes, captions, tokens)."""

    images: np.ndarray
    tokens: Tensor

    def pixels(self, index: Tensor) -> Tensor:
        """Return these pictures in [-1, 1], (batch, 3, size, size)."""
        chosen = torch.from_numpy(self.images[index.numpy()])
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


def end_with(parent: int) -> None:
    """End this worker once its parent is gone; a killed one would leave it waiting for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def scene_data(folder: Path, *, count: int, size: int, validation: bool = False, workers: int = 2) -> SceneData:
    """Return `count` scenes of the training combinations, or of the held-out ones; drawn on the first call.

    Args:
        folder: Where the drawn data stays: size * size * 3 bytes a scene.
    """
    split = "validation" if validation else "train"
    images_path, tokens_path = folder / f"{split}-{size}-{count}.npy", folder / f"{split}-{count}-tokens.npy"
    images, tokens = _drawn(images_path, count), _drawn(tokens_path, count)
    if images is None or tokens is None:
        first = VALIDATION_SEED if validation else 0
        jobs = [(seed, size, validation) for seed in range(first, first + count)]
        with Pool(workers, initializer=end_with, initargs=(os.getpid(),)) as pool:
            drawn = pool.map(_draw, jobs, chunksize=250)
        _write(tokens_path, np.stack([tokens for _, tokens in drawn]))
        _write(images_path, np.stack([image for image, _ in drawn]))
        images, tokens = _drawn(images_path, count), _drawn(tokens_path, count)
    if images is None or tokens is None:
        raise LoadError(f"{images_path} and {tokens_path} were written and cannot be read back. Is the disk sound?")
    return SceneData(images, torch.from_numpy(np.array(tokens)))


def _write(path: Path, values: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _drawn(path: Path, count: int) -> np.ndarray | None:
    """What was drawn before; None where it is missing, cut off or of another number of scenes."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.ndim > 1 and len(values) == count else None


def _draw(job: tuple[int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
    seed, size, validation = job
    scene = sample_split(seed, held=validation)
    rng = random.Random(f"captions {seed}")
    captions = [caption(scene, random_keep(rng)) for _ in range(CAPTIONS_PER_SCENE)]
    return np.asarray(render_pil(scene, size)), np.array([tokenize(text) for text in captions])
