"""Which passes of an edit may be spared, decided on the path of its source."""

from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory


def every_nth(grid: TimeGrid, n: int) -> frozenset[float]:
    """Return the times of all passes but each n-th one; 1 spares none.

    Raises:
        InputError: n is less than 1.
    """
    if n < 1:
        raise InputError(f"Passes are spared between each n-th one, n >= 1; got {n}.")
    return frozenset(t for i, t in enumerate(grid.times[:-1]) if i % n)


def steady_times(trajectory: Trajectory, grid: TimeGrid, tolerance: float) -> frozenset[float]:
    """Return the times at which the source's velocity has moved less than the tolerance since the last pass computed.

    The change that is summed up is |v_i - v_(i-1)| / |v_(i-1)|, mean absolute values, of v_i = (z_(i+1) - z_i) /
    (t_(i+1) - t_i) along the recorded path.

    Args:
        trajectory: Of the source, with a state at every time of the grid.
        tolerance: Share of the velocity; 0 spares no pass.

    Raises:
        InputError: The tolerance is negative.

    Source: the summing rule of Liu et al., "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model"
        (CVPR 2025), arXiv:2411.19108. We differ: the change is not estimated while drawing, it is the source's own.
    """
    if tolerance < 0:
        raise InputError(f"The tolerance is a share of the velocity, 0 or more; got {tolerance}.")
    if tolerance == 0:
        return frozenset()
    spared: set[float] = set()
    previous, change = None, 0.0
    for t0, t1 in grid.steps():
        velocity = (trajectory.at(t1) - trajectory.at(t0)) / (t1 - t0)
        if previous is not None:
            change += ((velocity - previous).abs().mean() / previous.abs().mean()).item()
            if change < tolerance:
                spared.add(t0)
            else:
                change = 0.0
        previous = velocity
    return frozenset(spared)
