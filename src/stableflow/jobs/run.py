"""Running the cells of a job: in this process, or this process's share of them."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from stableflow.errors import InputError

Work = TypeVar("Work")


@dataclass(frozen=True)
class Task(Generic[Work]):
    """Cells that are computed together.

    Args:
        keys: Of the cells.
        work: What the computation is given.
    """

    keys: tuple[str, ...]
    work: Work


Compute = Callable[[Work], Mapping[str, Any]]
"""From a task's work to the records of all of its keys."""

Told = Callable[[int, int], None]
"""Told how many cells are done, of how many."""


@runtime_checkable
class Results(Protocol):
    """Where a job keeps what its cells found: `Cells`, or anything that does as much."""

    def has(self, keys: Iterable[str]) -> bool:
        """Whether all of these are done."""
        ...

    def put(self, key: str, record: Any) -> None:
        """Keep one result."""
        ...

    def refresh(self) -> None:
        """Read what other processes have added."""
        ...


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count` parts of a job."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(f"A shard i/n needs 1 <= i <= n, got {self.number}/{self.count}.")

    @staticmethod
    def parse(text: str) -> "Shard":
        """Read "2/4"."""
        if not (match := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)):
            raise InputError(f"A shard is written i/n, such as 2/4 for the second of four, got {text!r}.")
        return Shard(int(match[1]), int(match[2]))

    @staticmethod
    def of_torchrun() -> "Shard":
        """The part of this process among those that torchrun started; everything where it did not."""
        rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and size.isdecimal()):
            raise InputError(
                f"RANK and WORLD_SIZE, as torchrun sets them, are whole numbers, got {rank!r} and {size!r}."
            )
        return Shard(int(rank) + 1, int(size))


def run_tasks(
    tasks: Sequence[Task[Work]],
    compute: Compute[Work],
    cells: Results,
    *,
    shard: Shard = Shard(),
    told: Told | None = None,
) -> bool:
    """Compute this shard's unfinished tasks one by one.

    A task is computed whole or not at all, so that a resumed job repeats the very same computation.

    Returns:
        Whether every cell of the job, of all shards, is there now.
    """
    own = tasks[shard.number - 1 :: shard.count]
    done, total = 0, sum(len(task.keys) for task in own)
    for task in own:
        if not cells.has(task.keys):
            for key, record in compute(task.work).items():
                cells.put(key, record)
        done += len(task.keys)
        if told is not None:
            told(done, total)
    cells.refresh()
    return all(cells.has(task.keys) for task in tasks)
