"""The keys and values of a source, kept from its own passes for those of its edits."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stableflow.errors import InterventionError, TokenLayoutError, unknown_name
from stableflow.interventions.address import Address
from stableflow.interventions.compress import from_fp8, to_fp8
from stableflow.interventions.disk import Disk
from stableflow.interventions.prefetch import Kept, Prefetch, Transfer

Precision = Literal["exact", "fp8"]


class KVStore:
    """Keys and values of the source's image tokens by pass and layer.

    Memory: 2 x passes x branches x layers x image tokens x width x bytes an element; 50.3 MB a layer and step for
    FLUX.1 (one branch) at 1024x1024 in bfloat16, half of that in fp8.

    Args:
        device: Where they are kept. "cpu" frees the accelerator's memory and costs a copy at every use, which
            `prefetching` moves out of the way; "disk" frees main memory as well; None keeps them where they were made.
        precision: "exact", or "fp8" for one byte a number with one scale a token.
        last_visits: Of several passes of a branch at one time keep the last, and count it as the first: what aligned
            replay asks for, which evaluates once where the inversion iterated.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        *,
        precision: Precision = "exact",
        last_visits: bool = False,
    ):
        if precision not in ("exact", "fp8"):
            raise unknown_name("precision of keys and values", precision, ["exact", "fp8"])
        self.precision: Precision = precision
        self._last_visits = last_visits
        self._disk = Disk() if device == "disk" else None
        self._device = None if device is None else torch.device("cpu" if device == "disk" else device)
        self._entries: dict[Address, Kept] = {}
        self._transfer: Transfer | None = None
        self._prefetch: Prefetch | None = None

    def put(self, address: Address, features: Float[Tensor, "1 image_tokens dim"]) -> None:
        """Keep a copy of one source row's keys or values."""
        features = features.detach()
        if self._last_visits:
            address = replace(address, occurrence=0)
        self.put_kept(address, to_fp8(features) if self.precision == "fp8" else (features,))

    def put_kept(self, address: Address, kept: Kept) -> None:
        """Keep a copy of what another store kept."""
        if self._disk is not None:
            self._entries[address] = tuple(self._disk.keep(tensor) for tensor in kept)
        elif self._to_main_memory:
            transfer = self._transfer_of(kept[0].device)
            self._entries[address] = tuple(transfer.down(tensor) for tensor in kept)
        else:
            self._entries[address] = tuple(tensor.to(self._device or tensor.device, copy=True) for tensor in kept)

    def get(self, address: Address, like: Float[Tensor, "batch image_tokens dim"]) -> Tensor:
        """Return what was put, on `like`'s device, ready to broadcast over its rows.

        Raises:
            InterventionError: Nothing was recorded at this address.
            TokenLayoutError: It was recorded at another image size.
        """
        self._require(address)
        source = self._entries[address][0]
        if source.shape[1:] != like.shape[1:]:
            raise TokenLayoutError(
                f"RecordKV saw {source.shape[1]} image tokens of width {source.shape[2]}, InjectKV got "
                f"{like.shape[1]} of width {like.shape[2]}. Keys and values can only be injected at the size they "
                "were recorded at: run the edit at the source's height and width."
            )
        return _decoded([tensor.to(like.device) for tensor in self._kept(address)], like.dtype)

    def get_some(
        self, address: Address, tokens: Int[Tensor, " some"], *, of: int, like: Tensor
    ) -> Float[Tensor, "1 some dim"]:
        """Return what was put for some tokens of a grid of so many, in `like`'s type and on its device.

        Raises:
            InterventionError: Nothing was recorded at this address.
            TokenLayoutError: It was recorded at another image size.
        """
        self._require(address)
        if self._entries[address][0].shape[1] != of:
            raise TokenLayoutError(
                f"RecordKV saw {self._entries[address][0].shape[1]} image tokens, and this pass has {of}. Run the edit "
                "at the source's height and width."
            )
        some = [tensor.index_select(1, tokens.to(tensor.device)).to(like.device) for tensor in self._kept(address)]
        return _decoded(some, like.dtype)

    def _kept(self, address: Address) -> Kept:
        return self._entries[address] if self._prefetch is None else self._prefetch.take(address)

    def _require(self, address: Address) -> None:
        if address not in self._entries:
            raise InterventionError(
                f"No source {address.part} was recorded for layer {address.layer} at t={address.t:.6f} "
                f"(visit {address.occurrence + 1}, {address.branch} branch). Recorded: layers {list(self.layers)} at "
                f"{len(self.times)} times. "
                "Edit with the layers, steps and solver that the source was made with, or make the source again."
            )

    def at_times(self, given: Mapping[float, float]) -> "KVStore":
        """Return what was kept of some passes, to be found at other times.

        Args:
            given: By the time of a pass that reads, the time of the pass that was recorded; the others are left out.
        """
        moved = KVStore(self._device, precision=self.precision)
        for address, kept in self._entries.items():
            for at in [at for at, recorded in given.items() if recorded == address.t]:
                moved.put_kept(replace(address, t=at), kept)
        return moved

    @contextmanager
    def prefetching(self, device: torch.device) -> Generator[None]:
        """Surround the passes of an edit: what is kept in main memory comes to the device one pass ahead.

        Must not be nested; changes nothing but the time where keys and values are on the device already.
        """
        if not self._to_main_memory:
            yield
            return
        self._prefetch = Prefetch(self._entries, self._transfer_of(device))
        try:
            yield
        finally:
            self._prefetch = None

    @property
    def place(self) -> str:
        """Return where they are kept: "disk", "cpu" or "device"."""
        return "disk" if self._disk is not None else "cpu" if self._to_main_memory else "device"

    @property
    def _to_main_memory(self) -> bool:
        return self._device is not None and self._device.type == "cpu"

    def _transfer_of(self, device: torch.device) -> Transfer:
        if self._transfer is None or self._transfer.device != device:
            self.finish()
            self._transfer = Transfer(device)
        return self._transfer

    def finish(self) -> None:
        """Wait until everything that was put has arrived."""
        if self._transfer is not None:
            self._transfer.finish()

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({address.layer for address in self._entries}))

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(sorted({address.t for address in self._entries}, reverse=True))

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for kept in self._entries.values() for tensor in kept)

    @property
    def entries(self) -> Mapping[Address, Tensor]:
        """The kept values; in fp8 they count in units of `scales`."""
        self.finish()
        return {address: kept[0] for address, kept in self._entries.items()}

    @property
    def scales(self) -> Mapping[Address, Tensor]:
        """One a token, in fp8; empty else."""
        return {address: kept[1] for address, kept in self._entries.items() if len(kept) == 2}


def _decoded(kept: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    values, *scale = kept
    return from_fp8(values, scale[0], dtype) if scale else values.to(dtype)
