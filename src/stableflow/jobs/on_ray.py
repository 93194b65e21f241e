"""Running the cells of a job as Ray actors: several processes, or several machines."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from stableflow.errors import InterventionError, MissingExtraError
from stableflow.jobs.cells import Cells
from stableflow.jobs.run import Compute, Task, Told, Work


def run_on_ray(
    tasks: Sequence[Task[Work]],
    open_compute: Callable[[], Compute[Work]],
    cells: Cells,
    *,
    workers: int,
    told: Told | None = None,
) -> None:
    """Compute the unfinished tasks in actors that each open their own model and pull from one queue.

    Args:
        open_compute: Called once in each actor; must be picklable.
        workers: Actors. A machine with accelerators gives each its own.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
        from ray.util import ActorPool  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("Running on Ray needs ray: pip install 'stableflow[ray]'.") from error
    unfinished = [task for task in tasks if not cells.has(task.keys)]
    done, total = (
        sum(len(t.keys) for t in tasks) - sum(len(t.keys) for t in unfinished),
        sum(len(t.keys) for t in tasks),
    )
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)
    try:
        accelerators = min(1.0, ray.cluster_resources().get("GPU", 0) / workers)
        actor = ray.remote(num_cpus=1, num_gpus=accelerators)(_Worker)
        pool = ActorPool([actor.remote(open_compute) for _ in range(workers)])
        for task, records in pool.map_unordered(_submit, [(task.keys, task.work) for task in unfinished]):
            for key, record in records.items():
                cells.put(key, record)
            done += len(task)
            if told is not None:
                told(done, total)
    except RayError as error:
        raise InterventionError(
            f"A Ray worker failed: {error}. What was finished is kept; start again to go on."
        ) from error
    finally:
        ray.shutdown()


class _Worker:
    def __init__(self, open_compute: Callable[[], Any]):
        self._compute = open_compute()

    def run(self, keys: tuple[str, ...], work: Any) -> tuple[tuple[str, ...], Any]:
        return keys, self._compute(work)


def _submit(actor: Any, job: tuple[tuple[str, ...], Any]) -> Any:
    return actor.run.remote(*job)
