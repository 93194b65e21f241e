"""The keys and values of a source, kept from its own passes for those of its edits."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InterventionError, TokenLayoutError
from stableflow.models.base import Branch, Forward, Part


@dataclass(frozen=True, order=True)
class Address:
    """Which projection of which pass: time, occurrence, layer, key or value, branch, and attention of the block."""

    t: float
    occurrence: int
    layer: int
    part: Part
    branch: Branch = "conditional"
    attention: int = 0


class KVStore:
    """Keys and values of the source's image tokens by pass and layer.

    Memory: 2 x passes x branches x layers x image tokens x width x bytes an element; 50.3 MB a layer and step for
    FLUX.1 (one branch) at 1024x1024 in bfloat16.

    Args:
        device: Where they are kept. "cpu" frees the accelerator's memory and costs a copy at every use; None keeps
            them where they were made.
    """

    def __init__(self, device: torch.device | str | None = None):
        self._device = device
        self._entries: dict[Address, Tensor] = {}

    def put(self, address: Address, features: Float[Tensor, "1 image_tokens dim"]) -> None:
        """Keep a copy of one source row's keys or values."""
        kept = features.detach()
        self._entries[address] = kept.to(self._device or kept.device, copy=True)

    def get(self, address: Address, like: Float[Tensor, "batch image_tokens dim"]) -> Tensor:
        """Return what was put, on `like`'s device, ready to broadcast over its rows.

        Raises:
            InterventionError: Nothing was recorded at this address.
            TokenLayoutError: It was recorded at another image size.
        """
        if address not in self._entries:
            raise InterventionError(
                f"No source {address.part} was recorded for layer {address.layer} at t={address.t:.6f} "
                f"(visit {address.occurrence + 1}, {address.branch} branch). Recorded: layers {list(self.layers)} at "
                f"{len(self.times)} times. "
                "Edit with the layers, steps and solver that the source was made with, or make the source again."
            )
        source = self._entries[address]
        if source.shape[1:] != like.shape[1:]:
            raise TokenLayoutError(
                f"RecordKV saw {source.shape[1]} image tokens of width {source.shape[2]}, InjectKV got "
                f"{like.shape[1]} of width {like.shape[2]}. Keys and values can only be injected at the size they "
                "were recorded at: run the edit at the source's height and width."
            )
        return source.to(like.device, like.dtype)

    def keep_last_visits(self) -> None:
        """Forget all but the last pass of each branch at every time, and count that one as the first."""
        last: dict[tuple[float, Branch], int] = {}
        for address in self._entries:
            visit = (address.t, address.branch)
            last[visit] = max(last.get(visit, 0), address.occurrence)
        self._entries = {
            replace(address, occurrence=0): features
            for address, features in self._entries.items()
            if address.occurrence == last[address.t, address.branch]
        }

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({address.layer for address in self._entries}))

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(sorted({address.t for address in self._entries}, reverse=True))

    @property
    def num_bytes(self) -> int:
        return sum(features.nbytes for features in self._entries.values())

    @property
    def entries(self) -> Mapping[Address, Tensor]:
        return self._entries


def address_of(forward: Forward, layer: int, part: Part) -> Address:
    """Return the address of a projection in the pass under way."""
    return Address(forward.t, forward.occurrence, layer, part, forward.branch, forward.attention)
