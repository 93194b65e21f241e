"""Schedules: what they are between knots, at jumps and outside; windows as they were; text and JSON both ways."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stableflow.errors import InputError
from stableflow.flow.schedule import ALWAYS, NEVER, Schedule, as_schedule

TIMES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0]) | st.floats(0, 1)
VALUES = st.floats(-1e3, 1e3)


@st.composite
def schedules(draw):
    times = sorted(draw(st.lists(TIMES, min_size=1, max_size=6)), reverse=True)
    return Schedule(tuple((t, draw(VALUES)) for t in times))


@st.composite
def windows(draw):
    return tuple(sorted((draw(TIMES), draw(TIMES))))


@given(windows(), VALUES, TIMES)
def test_a_window_is_the_closed_interval_that_t_window_was(window, value, t):
    low, high = window
    assert Schedule.window(low, high, value)(t) == (value if low <= t <= high else 0.0)


@given(schedules(), windows(), TIMES)
def test_within_leaves_the_schedule_inside_and_nothing_outside(schedule, window, t):
    low, high = window
    expected = schedule(t) if low <= t <= high else 0.0
    assert math.isclose(schedule.within(low, high)(t), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_a_window_over_the_whole_flow_is_no_window():
    assert Schedule.window(0.0, 1.0) == ALWAYS and as_schedule((0, 1)) == ALWAYS and as_schedule(0) == NEVER


@given(schedules(), TIMES)
def test_values_stay_between_the_neighbouring_knots(schedule, t):
    assert min(schedule.values) <= schedule(t) <= max(schedule.values)
    times = [knot[0] for knot in schedule.knots]
    if t > times[0]:
        assert schedule(t) == schedule.values[0]
    if t < times[-1]:
        assert schedule(t) == schedule.values[-1]
    for time in times:
        assert schedule(time) in [value for at, value in schedule.knots if at == time]


@given(st.floats(0.01, 0.99), VALUES, VALUES)
def test_linear_between_knots(share, start, end):
    value = Schedule.ramp(start, end, 0.2, 0.8)(0.8 - 0.6 * share)
    assert math.isclose(value, start + share * (end - start), rel_tol=1e-6, abs_tol=1e-6)
    assert Schedule.ramp(start, end, 0.2, 0.8)(0.9) == start and Schedule.ramp(start, end, 0.2, 0.8)(0.1) == end


def test_a_jump():
    late = Schedule(((1.0, 0.2), (0.5, 0.2), (0.5, 0.9), (0.0, 0.9)))
    assert [late(t) for t in (0.75, 0.5, 0.25)] == [0.2, 0.9, 0.9]
    assert late.is_stepped and not late.is_constant and not Schedule.ramp(1, 0).is_stepped


@given(schedules(), TIMES)
def test_json_and_text_both_ways(schedule, t):
    for again in (
        Schedule.from_json(json.loads(json.dumps(schedule.to_json()))),
        Schedule.parse(str(schedule)),
        as_schedule(schedule.to_json()),
        as_schedule(str(schedule)),
    ):
        assert again(t) == schedule(t)
        assert again == schedule or schedule.is_constant


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("0.6", Schedule.constant(0.6)),
        ("1@0.4..1", Schedule.window(0.4, 1.0)),
        ("0.5@0..0.3", Schedule.window(0.0, 0.3, 0.5)),
        ("1:0.9, 0.5:0", Schedule(((1.0, 0.9), (0.5, 0.0)))),
        ("1:1,0.4:1,0.4:0", Schedule.window(0.4, 1.0)),
    ],
)
def test_text(text, schedule):
    assert Schedule.parse(text) == schedule == as_schedule(text)


def test_a_number_and_a_window_are_written_short():
    assert ALWAYS.to_json() == 1.0 and str(Schedule.constant(0.6)) == "0.6"
    assert str(Schedule.window(0.4, 1.0)) == "1:1,0.4:1,0.4:0"


@pytest.mark.parametrize("text", ["", "much", "1@", "1@0.4", "1@0.2..0.4..1", "1:", "1:0.5,", "0.5:1:2", "1@a..b"])
def test_text_that_is_no_schedule(text):
    with pytest.raises(InputError, match="is no schedule; write a number"):
        Schedule.parse(text)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Schedule(()), "at least one knot"),
        (lambda: Schedule(((0.2, 1.0), (0.8, 0.0))), "Sort the knots"),
        (lambda: Schedule(((1.2, 1.0),)), r"lie in \[0, 1\]"),
        (lambda: Schedule.constant(float("nan")), "finite"),
        (lambda: Schedule.window(0.8, 0.2), "t_window must be"),
        (lambda: as_schedule((0.5, float("nan"))), "t_window must be"),
        (lambda: Schedule.parse("1@0.8..0.2"), "t_window must be"),
        (lambda: Schedule.from_json(True), "True is no schedule"),
        (lambda: Schedule.from_json(None), "None is no schedule"),
        (lambda: Schedule.from_json([[1, 2, 3]]), "is no schedule"),
        (lambda: Schedule.from_json([[1, 0.5], 0]), "is no schedule"),
        (lambda: Schedule.from_json([[1, 0.5], ["a", None]]), "is no schedule"),
    ],
)
def test_refused(bad, message):
    with pytest.raises(InputError, match=message):
        bad()
