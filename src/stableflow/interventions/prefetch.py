"""Keys and values between accelerator and main memory, copied beside the computation instead of in its way."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stableflow.interventions.address import Address, Visit

Kept = tuple[Tensor, ...]


class Transfer:
    """Copies to and from one accelerator on a stream of their own; plain copies on a CPU.

    Main memory is pinned, without which a copy waits for the accelerator.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def down(self, tensor: Tensor) -> Tensor:
        """Return a copy in main memory; `finish` before the CPU reads it."""
        if self._stream is None:
            return tensor.to("cpu", copy=True)
        tensor = tensor.contiguous()
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)
        return pinned

    def up(self, kept: Kept) -> Kept:
        """Return copies on the accelerator; `arrive` before they are used."""
        if self._stream is None:
            return tuple(tensor.to(self.device) for tensor in kept)
        with torch.cuda.stream(self._stream):
            return tuple(tensor.to(self.device, non_blocking=True) for tensor in kept)

    def mark(self) -> Any:
        """Return an event at the end of the copies asked for so far, None on a CPU."""
        return None if self._stream is None else self._stream.record_event()

    def arrive(self, kept: Kept, mark: Any) -> None:
        """Have the computation wait for copies up to `mark`, and the memory of these for the computation."""
        if self._stream is None or mark is None:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_event(mark)
        for tensor in kept:
            tensor.record_stream(current)

    def finish(self) -> None:
        """Wait until every copy is done."""
        if self._stream is not None:
            self._stream.synchronize()


class Prefetch:
    """Hands out the entries of one edit pass by pass, with those of the next pass under way.

    Edits run from noise to image and never go back in time, so the passes' order is known. Memory on the accelerator:
    two passes' entries.

    Args:
        entries: What was kept in main memory.
        transfer: To the accelerator.
    """

    def __init__(self, entries: Mapping[Address, Kept], transfer: Transfer):
        self._entries = entries
        self._transfer = transfer
        self._order = sorted({address.visit for address in entries}, key=lambda visit: (-visit[0], visit[1]))
        self._staged: dict[Visit, dict[Address, Kept]] = {}
        self._marks: dict[Visit, Any] = {}
        self._current: Visit | None = None

    def take(self, address: Address) -> Kept:
        """Return the entry on the accelerator."""
        visit = address.visit
        if visit != self._current:
            self._enter(visit)
        kept = self._staged[visit].pop(address, None)
        if kept is None:  # asked for a second time
            kept = self._transfer.up(self._entries[address])
            self._marks[visit] = self._transfer.mark()
        self._transfer.arrive(kept, self._marks[visit])
        return kept

    def _enter(self, visit: Visit) -> None:
        following = self._order[self._order.index(visit) + 1 :][:1]
        self._staged = {known: staged for known, staged in self._staged.items() if known == visit}
        for wanted in [visit, *following]:
            if wanted not in self._staged:
                addresses = [address for address in self._entries if address.visit == wanted]
                self._staged[wanted] = {address: self._transfer.up(self._entries[address]) for address in addresses}
                self._marks[wanted] = self._transfer.mark()
        self._current = visit
