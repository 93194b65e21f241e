"""Where a source's keys and values go, chosen by name or by free memory."""

import os
from typing import Literal

import torch

from stableflow.checks import check_choice
from stableflow.errors import InputError
from stableflow.interventions import KVStore
from stableflow.interventions.disk import free_bytes
from stableflow.interventions.store import Precision
from stableflow.models.base import FlowModel

FP8_BYTES = 1  # a number
KVMemory = Literal["auto", "device", "cpu", "disk", "share"]
"""What becomes of a source's keys and values: kept beside the model, in main memory or in temporary files; "share"
keeps nothing and runs the source's row again with every edit; "auto" takes the first with room, but never the disk."""
DECODED = 32  # numbers a pixel, at the least, in the decoder's last layers
SHARE_OF_FREE = 0.5  # of free memory that recorded keys and values may take by default


def choose_memory(memory: KVMemory, bytes_needed: int, device: torch.device) -> KVMemory:
    """Return "device", "cpu", "disk" or "share"; "auto" takes the first with room, and the disk only when asked to.

    Raises:
        InputError: The disk has not that much room.
    """
    check_choice("kv_memory", memory, ["auto", "device", "cpu", "disk", "share"])
    if memory == "disk" and bytes_needed > free_bytes():
        raise InputError(
            f"kv_memory='disk' needs {bytes_needed / 1e9:,.1f} GB for keys and values, and the folder for temporary "
            f"files has {free_bytes() / 1e9:,.1f} GB free. Set TMPDIR to a larger disk, or take fewer steps."
        )
    if memory != "auto":
        return memory
    if bytes_needed <= SHARE_OF_FREE * _free_bytes(device):
        return "device"
    on_cpu = bytes_needed <= SHARE_OF_FREE * _free_bytes(torch.device("cpu"))
    return "cpu" if on_cpu and device.type != "cpu" else "share"


def needed_bytes(
    model: FlowModel, height: int, width: int, *, layers: int, passes: int, precision: Precision = "exact"
) -> int:
    """Return the most bytes that a source's keys and values take."""
    exact = model.kv_bytes(height, width) * layers * passes
    return exact if precision == "exact" else exact * FP8_BYTES // model.dtype.itemsize


def make_store(
    memory: KVMemory,
    bytes_needed: int,
    device: torch.device,
    *,
    precision: Precision = "exact",
    last_visits: bool = False,
) -> KVStore | None:
    """Return an empty store, or None where the source shares the batch with its edits."""
    choice = choose_memory(memory, bytes_needed, device)
    if choice == "share":
        return None
    return KVStore(None if choice == "device" else choice, precision=precision, last_visits=last_visits)


def check_fits(model: FlowModel, height: int, width: int) -> None:
    """Raise InputError if a size cannot fit the memory that the model's device has, whatever else is done.

    The least that a pass and the decoder need at once: queries, keys, values and features of the image tokens in one
    layer, and a few dozen numbers for each pixel.
    """
    needed = 2 * model.kv_bytes(height, width) + DECODED * height * width * model.dtype.itemsize
    whole = _all_bytes(model.device)
    if needed > whole:
        raise InputError(
            f"height and width {height}x{width} need at least {needed / 1e9:,.1f} GB at once, and {model.device} has "
            f"{whole / 1e9:,.1f} GB in all. The model's usual size is {'x'.join(map(str, model.default_size))}."
        )


def _all_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
