"""When in the flow each layer matters: bypass it during part of the schedule only."""

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count
from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.jobs.run import Shard, Task, Told, run_tasks
from stableflow.vital.measure import Bypassed, VitalityJob, measured_size


def split_times(grid: TimeGrid, count: int) -> list[tuple[float, float]]:
    """Return closed intervals (low, high) of flow times, from noise to image, of nearly equal numbers of steps."""
    starts = grid.times[:-1]  # a step evaluates the model where it begins
    check_count("windows", count, 0)
    if not 1 <= count <= len(starts):
        raise InputError(f"{len(starts)} steps are split into 1 to {len(starts)} windows, got {count}.")
    edges = [round(i * len(starts) / count) for i in range(count + 1)]
    return [(starts[end - 1], starts[begin]) for begin, end in zip(edges, edges[1:])]


def measure_windows(
    job: VitalityJob, count: int, *, shard: Shard = Shard(), told: Told | None = None
) -> Float[Tensor, "layers windows"] | None:
    """Measure the vitality of each layer in each window of steps, by the job's first similarity.

    Cost: `count` times that of the exact protocol.

    Returns:
        Means over the prompts; None while other shards have not finished theirs.
    """
    model, protocol = job.model, job.protocol
    windows = split_times(model.time_grid(protocol.num_steps, *measured_size(model, protocol)), count)
    work = [
        Bypassed(layer.index, prompts, window)
        for prompts in job.batches()
        for layer in model.layers
        for window in windows
    ]
    if not run_tasks([Task(w.keys, w) for w in work], job.measurer, job.cells, shard=shard, told=told):
        return None
    similarity = job.measurer.similarities[0].name
    total = torch.zeros(len(model.layers), count)
    for w in work:
        for key in w.keys:
            total[w.layer, windows.index(w.t_window)] += 1 - job.cells[key]["similarity"][similarity]
    return total / len(job.prompts)
