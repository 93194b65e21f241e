"""Which passes are spared: a rule on the source's path, checked on paths whose velocity is known."""

import pytest
import torch

from stableflow.errors import InputError
from stableflow.flow.skipping import every_nth, steady_times
from stableflow.flow.time_grid import linear_time_grid
from stableflow.flow.trajectory import Trajectory

GRID = linear_time_grid(8)


def path(velocities):
    """The states that Euler steps of these velocities visit."""
    state, trajectory = torch.zeros(1, 1, 2, 2), Trajectory()
    trajectory.put(GRID.times[0], state)
    for (t0, t1), v in zip(GRID.steps(), velocities):
        state = state + (t1 - t0) * v
        trajectory.put(t1, state)
    return trajectory


def test_every_nth():
    assert every_nth(GRID, 1) == frozenset() and every_nth(GRID, 8) == set(GRID.times[1:-1])
    assert every_nth(GRID, 2) == set(GRID.times[1:-1:2])
    with pytest.raises(InputError, match="n >= 1; got 0"):
        every_nth(GRID, 0)


def test_a_straight_path_is_computed_once():
    assert steady_times(path([1.0] * 8), GRID, 0.01) == set(GRID.times[1:-1])


def test_changes_add_up_until_they_reach_the_tolerance():
    """Each velocity is 1.1 times the one before: 0.1 + 0.1 stay below 0.25, the third reaches it."""
    spared = steady_times(path([1.1**i for i in range(8)]), GRID, 0.25)
    assert spared == {GRID.times[i] for i in (1, 2, 4, 5, 7)}


def test_a_turn_is_computed():
    assert steady_times(path([1, 1, 1, -1, -1, -1, -1, -1]), GRID, 0.5) == {GRID.times[i] for i in (1, 2, 4, 5, 6, 7)}


def test_no_tolerance_spares_nothing():
    assert steady_times(path([1.0] * 8), GRID, 0.0) == frozenset()
    with pytest.raises(InputError, match="0 or more"):
        steady_times(path([1.0] * 8), GRID, -0.1)
