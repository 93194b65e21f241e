"""Where a model runs, and in which numbers: checked before anything is loaded."""

import torch

from stableflow.errors import InputError
from stableflow.models.load_errors import first_line
from stableflow.reading import short

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def choose_device(device: str) -> str:
    """Return a device that is there; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        InputError: It is not there; names those that are.
    """
    if str(device) != "auto":
        return _checked_device(str(device))
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _checked_device(device: str) -> str:
    """A device on which a number can be put."""
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.ones(1, device=device).cpu()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"The device {device!r} is not there: {first_line(error).rstrip('.')}. Devices of this machine: "
            f"{', '.join(['cpu', *there])}."
        ) from error
    return device


def choose_dtype(dtype: torch.dtype | None, device: str) -> torch.dtype:
    """Return the dtype, or the usual one of the device.

    Raises:
        InputError: It is none of DTYPES.
    """
    if dtype is None:
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise InputError(f"dtype must be torch.float32, torch.bfloat16 or torch.float16, got {short(dtype)}.")
    return dtype
