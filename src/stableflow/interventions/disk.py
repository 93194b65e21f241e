"""Keys and values in files of their own, mapped into memory: they may be more than main memory holds."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


class Disk:
    """Tensors in a temporary folder (TMPDIR says where; a folder in memory gains nothing).

    A file is unlinked as soon as it is mapped, where the system allows: nothing is left behind by a process that is
    killed, and its place is free again with the tensor. What is read often stays in the system's cache.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stableflow-")
        self._count = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Return a copy that lives on the disk."""
        path = Path(self._folder.name) / str(self._count)
        self._count += 1
        number = max(tensor.nbytes, 1)
        mapped = torch.from_file(str(path), shared=True, size=number, dtype=torch.uint8)
        with suppress(PermissionError):  # Windows: it goes with the folder
            path.unlink()
        return mapped[: tensor.nbytes].view(tensor.dtype).reshape(tensor.shape).copy_(tensor)


def free_bytes() -> int:
    """Return the bytes that are free where temporary files go."""
    return shutil.disk_usage(tempfile.gettempdir()).free
