"""PIE-Bench: 700 pictures with one edit each, ten kinds of edits, and a mask of what the edit is about."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.datasets.files import field, inside, read_json, text
from stableflow.errors import LoadError

SIDE = 512  # pixels of every picture and mask
CATEGORIES = (
    "random",
    "change-object",
    "add-object",
    "delete-object",
    "change-content",
    "change-pose",
    "change-color",
    "change-material",
    "change-background",
    "change-style",
)
"""By `editing_type_id`."""


def load_pie_bench(
    folder: str | Path, *, mapping: str = "mapping_file.json", images: str = "annotation_images"
) -> list[Case]:
    """Read PIE-Bench from the folder that it was unpacked in.

    Masks take 256 KB each, 180 MB for all 700 cases.

    Args:
        folder: Holds the mapping file and the folder of pictures.
        mapping, images: Their names.

    Returns:
        A case an entry, in the file's order; its mask is true where the edit is.

    Raises:
        LoadError: Names the file and the entry.

    Source: Ju et al., "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code" (ICLR 2024),
    arXiv:2310.01506, whose benchmark this is.
    """
    folder = Path(folder)
    path = inside(folder, mapping, f"{folder}")
    entries = read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise LoadError(f"{path} must hold a mapping of case ids to entries.")
    return [_case(folder / images, key, entry, f"{path}, entry {key!r}") for key, entry in entries.items()]


def decode_mask(runs: Sequence[int]) -> Bool[Tensor, "512 512"]:
    """Return the mask of runs (start, length, start, length ...) over the flattened rows.

    The border of one pixel is always set: the annotations are unreliable there, and the benchmark's own evaluation
    takes it out of the unedited part.

    Raises:
        ValueError: The runs are not pairs, or leave the picture.
    """
    if len(runs) % 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs):
        raise ValueError("must be pairs of a start and a length, whole numbers of 0 or more")
    flat = torch.zeros(SIDE * SIDE, dtype=torch.bool)
    for start, length in zip(runs[::2], runs[1::2]):
        if start + length > flat.numel():
            raise ValueError(f"has a run of {length} from {start}, beyond the {SIDE}x{SIDE} picture")
        flat[start : start + length] = True
    mask = flat.reshape(SIDE, SIDE)
    mask[0] = mask[-1] = True
    mask[:, 0] = mask[:, -1] = True
    return mask


def _case(images: Path, key: str, entry: Any, where: str) -> Case:
    image = inside(images, text(entry, "image_path", where), where)
    try:
        mask = decode_mask(field(entry, "mask", list, where))
    except ValueError as error:
        raise LoadError(f"{where}: 'mask' {error}.") from error
    return Case(
        id=key,
        prompt=_prompt(entry, "original_prompt", where),
        edits=(_prompt(entry, "editing_prompt", where),),
        category=_category(entry, where),
        image=image,
        mask=mask,
    )


def _prompt(entry: Any, key: str, where: str) -> str:
    """The changed words stand in brackets, which no model should read."""
    prompt = re.sub(r"\s+", " ", text(entry, key, where).replace("[", "").replace("]", "")).strip()
    if not prompt:
        raise LoadError(f"{where}: {key!r} holds nothing but brackets.")
    return prompt


def _category(entry: Any, where: str) -> str:
    number = text(entry, "editing_type_id", where)
    if number not in {str(i) for i in range(len(CATEGORIES))}:
        raise LoadError(f"{where}: 'editing_type_id' must lie in 0..{len(CATEGORIES) - 1}, got {number!r}.")
    return CATEGORIES[int(number)]
