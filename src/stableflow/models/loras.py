"""LoRAs as a list with weights: what was asked for, and what a model has on."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stableflow.errors import InputError

LARGEST_WEIGHT = 10.0
Wanted = str | Path
"""A file, folder or hub id, with `:weight` behind it where that is not 1."""


@dataclass(frozen=True)
class Lora:
    """One LoRA on a model.

    Args:
        name: Its file's name, or where it is on the hub; no local path.
        digest: Of its weights.
        weight: How much of it acts; 1 is the whole.
        adapter: What peft calls it, for `pipeline.set_adapters`.
    """

    name: str
    digest: str
    weight: float
    adapter: str

    def __str__(self) -> str:
        return f"LoRA {self.name} ({self.digest}) at {self.weight:g}"


def weighted(lora: Wanted | Sequence[Wanted] | None) -> list[tuple[Wanted, float]]:
    """Return every LoRA that is asked for with its weight, in order.

    Raises:
        InputError: A weight is no number within +-10, or an entry is none.
    """
    if lora is None:
        return []
    entries = [lora] if isinstance(lora, str | Path) else lora
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str | Path) for entry in entries):
        raise InputError(f"lora takes a file, folder or hub id, or a list of them, got {lora!r}.")
    return [_divided(entry) for entry in entries]


def _divided(entry: Wanted) -> tuple[Wanted, float]:
    where, colon, text = str(entry).rpartition(":")
    if not colon or not where or Path(entry).exists():
        return entry, 1.0
    try:
        weight = float(text)
    except ValueError:
        return entry, 1.0
    if not math.isfinite(weight) or abs(weight) > LARGEST_WEIGHT:
        raise InputError(f"The weight of the LoRA {where} (lora=) must be a number within +-10, got {text}.")
    return where, weight


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Return a digest of a file's weights and their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()).tobytes())
    return digest.hexdigest()[:12]
