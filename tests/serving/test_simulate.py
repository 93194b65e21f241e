"""The simulator against closed forms of queueing theory, and what must hold of sessions and batches."""

import math

import pytest

from stableflow.errors import StableFlowError
from stableflow.serving.simulate import Assumptions, simulate

PLAIN = {"rate": 0.7, "sessions": 1, "source": 0.0, "edit": 1.0}


def test_one_replica_with_random_times_is_an_m_m_1_queue():
    load = 0.5
    outcome = simulate(Assumptions(**PLAIN | {"rate": load}, spread="exponential"), requests=20_000)
    mean = sum(outcome.latencies) / len(outcome.latencies)
    assert mean == pytest.approx(1 / (1 - load), rel=0.05)
    for share in (0.5, 0.95):  # the time in an M/M/1 queue is exponential
        assert outcome.quantile(share) == pytest.approx(-math.log(1 - share) / (1 - load), rel=0.06)
    assert outcome.busy == pytest.approx(load, rel=0.02)


def test_one_replica_with_fixed_times_is_an_m_d_1_queue():
    load = 0.7
    outcome = simulate(Assumptions(**PLAIN), requests=20_000)
    wanted = 1 + load / (2 * (1 - load))  # Pollaczek and Khinchine
    assert sum(outcome.latencies) / len(outcome.latencies) == pytest.approx(wanted, rel=0.03)


def test_batches_carry_a_load_that_single_edits_cannot():
    busy = {"rate": 1.5, "sessions": 1, "source": 0.0, "edit": 1.0, "row": 0.25}
    alone, batched = (simulate(Assumptions(**busy, batch=batch), 2000) for batch in (1, 8))
    assert alone.busy > 0.99 and alone.quantile(0.5) > 100  # it grows without end
    assert batched.quantile(0.95) < 5 and batched.batches < 1600
    assert len(batched.latencies) == 2000
    full = simulate(Assumptions(**busy, waiting=10), 2000)
    assert full.refused + len(full.latencies) == 2000 and full.refused > 400 and max(full.latencies) < 11


def test_sessions_are_made_once_where_there_is_room_and_come_from_disk_where_not():
    few = {"rate": 0.2, "sessions": 20, "replicas": 3, "kept": 20, "source": 3.0}
    assert 20 <= simulate(Assumptions(**few), 3000).made <= 60
    cramped = few | {"kept": 2}
    again = simulate(Assumptions(**cramped), 3000)
    loaded = simulate(Assumptions(**cramped, disk=0.1), 3000)
    assert again.made > 1000 and loaded.made == 20 and loaded.loaded > 1000
    assert loaded.quantile(0.5) < again.quantile(0.5)


def test_a_day_repeats_itself_and_nonsense_is_refused():
    given = Assumptions(rate=0.5, replicas=2, spread="exponential")
    assert simulate(given, 500, seed=3) == simulate(given, 500, seed=3) != simulate(given, 500, seed=4)
    for wrong in ({"rate": 0}, {"batch": 0}, {"spread": "normal"}, {"row": -1}):
        with pytest.raises(StableFlowError):
            Assumptions(**wrong)
