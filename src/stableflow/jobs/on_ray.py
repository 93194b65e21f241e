"""Running the cells of a job as Ray actors: several processes, or the machines of a cluster."""

import logging
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stableflow.errors import InputError, InterventionError, MissingExtraError, StableFlowError
from stableflow.jobs.run import Compute, Results, Task, Told, Work

ADDRESS = "RAY_ADDRESS"  # Ray's own name for the cluster that a process belongs to; `ray job submit` sets it
TYPE = "accelerator_type:"  # how Ray calls the resource of an accelerator
LOSSES = 3  # times all workers may be lost with no result between


@dataclass(frozen=True)
class Placement:
    """Where a job's workers run.

    Args:
        workers: Actors, each with a model of its own. More than the cluster has room for wait until there is room.
        address: Of a running cluster: "auto", host:port or ray://host:port. None is that of `RAY_ADDRESS`, and where
            there is none, Ray is started on this machine alone, for the time of the job.
        gpu_type: Only on machines with this accelerator, by Ray's name for it, such as "A100" or "H100".
    """

    workers: int = 1
    address: str | None = None
    gpu_type: str | None = None


def run_on_ray(
    tasks: Sequence[Task[Work]],
    open_compute: Callable[[], Compute[Work]],
    cells: Results,
    *,
    workers: int,
    address: str | None = None,
    gpu_type: str | None = None,
    told: Told | None = None,
) -> None:
    """Compute the unfinished tasks in actors that each open their own model and pull from one queue.

    A task whose worker or machine is lost goes back to the queue, and another worker is started. Results are kept by
    this process alone, so they are those of a run without Ray.

    Args:
        open_compute: Called once in each actor; must be picklable.
        workers, address, gpu_type: See `Placement`.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: There is no cluster at the address.
        InterventionError: A worker failed by itself, or workers are lost again and again.
    """
    placed = Placement(workers, address, gpu_type)
    unfinished = [task for task in tasks if not cells.has(task.keys)]
    total = sum(len(task.keys) for task in tasks)
    done = total - sum(len(task.keys) for task in unfinished)
    with connected(placed) as ray:
        for task, records in _computed(ray, unfinished, open_compute, placed):
            for key, record in records.items():
                cells.put(key, record)
            done += len(task.keys)
            if told is not None:
                told(done, total)


@contextmanager
def connected(placed: Placement) -> Iterator[Any]:
    """Join the cluster, or start Ray on this machine; what was joined before is left as it is."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("Running on Ray needs ray: pip install 'stableflow[ray]'.") from error
    if ray.is_initialized():
        yield ray
        return
    address = placed.address or os.environ.get(ADDRESS) or None
    where: dict[str, Any] = {"address": address}
    if address is None:
        cores = max(placed.workers, os.cpu_count() or 1)
        where = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": cores}
    try:
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises bare ones where it cannot start
        if address is None:
            raise InputError(
                f"Ray could not be started on this machine: {' '.join(str(error).split())[:300]} If the machine is "
                "merely busy, try again; else start it with `ray start --head` and give --address."
            ) from error
        raise InputError(
            f"No Ray cluster answers at {address!r}: {' '.join(str(error).split())[:300]} Start one with `ray start "
            f"--head`, or leave --address and {ADDRESS} out to work on this machine alone."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _computed(
    ray: Any, tasks: Sequence[Task[Work]], open_compute: Callable[[], Compute[Work]], placed: Placement
) -> Iterator[tuple[Task[Work], Any]]:
    """Yield each task with its records, in the order in which they come.

    Raises:
        InterventionError: See `run_on_ray`.
    """
    actor = ray.remote(**_resources(ray, placed))(_Worker)
    queue, losses = deque(tasks), 0
    busy: dict[Any, tuple[Any, Task[Work] | None]] = {}  # what is awaited: the worker and its task, None while it opens

    def start() -> None:
        worker = actor.remote()
        busy[worker.open.remote(open_compute)] = worker, None

    for _ in range(min(placed.workers, len(tasks))):
        start()
    while queue or any(task is not None for _, task in busy.values()):
        (ready, *_), _ = ray.wait(list(busy), num_returns=1)
        worker, task = busy.pop(ready)
        records, lost = _result(ray, ready)
        if lost is not None:
            losses += 1
            if losses > LOSSES * placed.workers:
                raise InterventionError(
                    f"{losses} workers were lost with no result between, the last by {lost}. Is their memory too "
                    "small for the model? What was finished is kept; start again to go on."
                )
            if task is not None:
                queue.append(task)  # last, so that one which kills its workers keeps no other from being done
            start()
            continue
        if queue:
            following = queue.popleft()
            busy[worker.run.remote(following.work)] = worker, following
        if task is not None:
            losses = 0
            yield task, records


def _result(ray: Any, reference: Any) -> tuple[Any, str | None]:
    """Return what a worker made, or by what it was lost."""
    from ray import exceptions as of_ray  # pyright: ignore[reportMissingImports]

    lost = (of_ray.RayActorError, of_ray.NodeDiedError, of_ray.WorkerCrashedError, of_ray.ObjectLostError,
            of_ray.OutOfMemoryError)  # fmt: skip
    try:
        return ray.get(reference), None
    except lost as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    except of_ray.RayError as error:
        if isinstance(cause := getattr(error, "cause", None), StableFlowError):
            raise cause from error
        raise InterventionError(
            f"A Ray worker failed: {error}. What was finished is kept; start again to go on."
        ) from error


def _resources(ray: Any, placed: Placement) -> dict[str, Any]:
    """What an actor asks for: a core, and its share of the accelerators, which never spans two of them."""
    devices = int(ray.cluster_resources().get("GPU", 0))
    asked: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 / math.ceil(placed.workers / devices) if devices else 0}
    if placed.gpu_type is not None:
        asked["accelerator_type"] = placed.gpu_type
        there = {name.removeprefix(TYPE) for name in ray.cluster_resources() if name.startswith(TYPE)}
        if placed.gpu_type not in there:
            warnings.warn(
                f"No machine of the cluster has the accelerator {placed.gpu_type!r} (it has: "
                f"{', '.join(sorted(there)) or 'none'}), so workers wait until one joins.",
                stacklevel=2,
            )
    return asked


class _Worker:
    """Opens in a call of its own, so that what fails there is told apart from a worker that was lost."""

    def open(self, open_compute: Callable[[], Any]) -> None:
        self._compute = open_compute()

    def run(self, work: Any) -> Any:
        return self._compute(work)
