"""Data-parallel training with several processes of one thread each.

On a CPU this is several times quicker than one process with several threads, whose barriers cost more than they bring.
Alone, or on a GPU, the world has size one and nothing is communicated.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, and where it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0


def join_world(device: str = "cpu") -> World:
    """Join the processes that torchrun started, or be alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cpu" and size > 1:
        torch.set_num_threads(1)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return World(int(os.environ.get("RANK", "0")), size, torch.device(device))


def average_gradients(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Replace every gradient by its mean over the processes."""
    if world.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    _scatter(flat / world.size, gradients)


def average(value: float, world: World) -> float:
    """Return the mean of a number over the processes."""
    if world.size == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / world.size


def share_owned(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Give every process the parameters that their owner (number modulo world size) has updated."""
    if world.size == 1:
        return
    owned = [p.data if i % world.size == world.rank else torch.zeros_like(p) for i, p in enumerate(parameters)]
    flat = torch.cat([tensor.reshape(-1) for tensor in owned])
    dist.all_reduce(flat)
    _scatter(flat, [p.data for p in parameters])


def wait_for_all(world: World) -> None:
    if world.size > 1:
        dist.barrier()


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for part, tensor in zip(flat.split([tensor.numel() for tensor in tensors]), tensors):
        tensor.copy_(part.view_as(tensor))
