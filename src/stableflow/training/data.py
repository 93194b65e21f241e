"""Renders and captions, drawn once and read from disk; the i-th scene is the same on every machine."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from torch import Tensor

from stableflow.errors import LoadError
from stableflow.files import replacing
from stableflow.scenes import Scene, caption, random_keep, render_pil, sample_split
from stableflow.training.tokens import LENGTHS, tokenize

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
    shapes = (count, size, size, 3), (count, CAPTIONS_PER_SCENE, LENGTHS[layers])
    images, tokens = _drawn(images_path, shapes[0]), _drawn(tokens_path, shapes[1])
    if images is None or tokens is None:
        first = VALIDATION_SEED if validation else 0
        jobs = [(seed, size, layers, validation) for seed in range(first, first + count)]
        with Pool(workers) as pool:
            _write(tokens_path, _write_images(images_path, shapes[0], pool.imap(_draw, jobs, chunksize=50)))
        images, tokens = _drawn(images_path, shapes[0]), _drawn(tokens_path, shapes[1])
    if images is None or tokens is None:
        raise LoadError(f"{images_path} and {tokens_path} were written and cannot be read back. Is the disk sound?")
    return SceneData(images, torch.from_numpy(np.array(tokens)), layers)


def _write_images(path: Path, shape: tuple[int, ...], drawn: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Write pictures as they come, since together they may not fit the memory; returns their captions' ids."""
    tokens = []
    with replacing(path) as temporary, temporary.open("wb") as file:
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image, ids in drawn:
            file.write(image.tobytes())
            tokens.append(ids)
    return np.stack(tokens)


def _write(path: Path, values: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _drawn(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """What was drawn before; None where it is missing, cut off, or of other scenes by its shape."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == shape else None


def _draw(job: tuple[int, int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
    seed, size, layers, validation = job
    scene = sample_split(seed, held=validation, layers=layers)
    rng = random.Random(f"captions {seed}")
    captions = [caption(scene, random_keep(rng, layers)) for _ in range(CAPTIONS_PER_SCENE)]
    return np.asarray(render_pil(scene, size)), np.array([tokenize(text, layers) for text in captions])
