"""A number at every flow time: weights, guidance and prompts that come and go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.checks import check_number, check_text
from stableflow.errors import InputError
from stableflow.reading import short

GRAMMAR = "a number ('0.6'), a window value@low..high ('1@0.4..1'), or knots t:value ('1:0.9,0.5:0', t falling)"


@dataclass(frozen=True)
class Schedule:
    """A number at every flow time t in [0, 1]: linear between knots, constant outside the first and the last.

    Args:
        knots: Pairs (t, value), t falling as an edit runs: 1 is noise, 0 is the image. A time given more than once is
            a jump; at that time itself the value furthest from 0 holds, so windows are closed intervals.

    Example:
        >>> Schedule.window(0.4, 1.0)(0.7), Schedule.window(0.4, 1.0)(0.3)
        (1.0, 0.0)
        >>> Schedule.parse("1:0.9,0.5:0")(0.75)
        0.45
    """

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.knots, list | tuple) or not all(map(_is_knot, self.knots)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"A schedule's knots are pairs (t, value) of numbers, got {short(self.knots)}.")
        object.__setattr__(self, "knots", tuple((float(t), float(value)) for t, value in self.knots))
        times = [t for t, _ in self.knots]
        if not times:
            raise InputError("A schedule needs at least one knot (t, value).")
        if not all(math.isfinite(number) for knot in self.knots for number in knot):
            raise InputError(f"A schedule's knots (t, value) are finite numbers, got {self.knots}.")
        if not 0.0 <= min(times) <= max(times) <= 1.0 or any(t1 > t0 for t0, t1 in zip(times, times[1:])):
            raise InputError(
                f"A schedule's times lie in [0, 1] and fall from noise (1) to the image, got {times}. Sort the knots."
            )

    def __call__(self, t: float) -> float:
        """Return the value at flow time t."""
        here = [value for time, value in self.knots if time == t]
        if here:
            return max(here, key=abs)
        before, after = [knot for knot in self.knots if knot[0] > t], [knot for knot in self.knots if knot[0] < t]
        if not before or not after:
            return before[-1][1] if before else after[0][1]
        (t0, v0), (t1, v1) = before[-1], after[0]
        value = v0 + (t0 - t) / (t0 - t1) * (v1 - v0)
        return min(max(value, min(v0, v1)), max(v0, v1))  # rounding may pass a knot's value

    @staticmethod
    def constant(value: float) -> "Schedule":
        """Return the schedule that has one value at every time."""
        return Schedule(((1.0, check_number("value", value)),))

    @staticmethod
    def window(low: float, high: float, value: float = 1.0) -> "Schedule":
        """Return `value` for low <= t <= high, both ends included, and 0 elsewhere."""
        return Schedule.constant(value).within(low, high)

    @staticmethod
    def ramp(start: float, end: float, low: float = 0.0, high: float = 1.0) -> "Schedule":
        """Return `start` down to t = high, from there linearly to `end` at t = low, which stays."""
        low, high = checked_window(low, high)
        return Schedule(((high, check_number("start", start)), (low, check_number("end", end))))

    @staticmethod
    def parse(text: str) -> "Schedule":
        """Read a schedule from text; `str(schedule)` writes such text.

        Args:
            text: A number, "0.6"; or a window value@low..high, "1@0.4..1"; or knots t:value with t falling,
                "1:0.9,0.5:0", where a time given twice is a jump.

        Raises:
            InputError: It is none of these.
        """
        check_text("schedule", text)
        try:
            if "@" in text:
                value, window = text.split("@")
                low, high = window.split("..")
                return Schedule.window(float(low), float(high), float(value))
            if ":" in text:
                pairs = [knot.split(":") for knot in text.split(",")]
                return Schedule(tuple((float(t), float(value)) for t, value in pairs))
            return Schedule.constant(float(text))
        except InputError:
            raise
        except ValueError:
            raise InputError(f"{short(text)} is no schedule; write {GRAMMAR}.") from None

    @staticmethod
    def from_json(value: Any) -> "Schedule":
        """Read what `to_json` returns; text as `parse` takes it passes too.

        Raises:
            InputError: It is neither.
        """
        if isinstance(value, str):
            return Schedule.parse(value)
        if _is_number(value):
            return Schedule.constant(value)
        match value:
            case [_, *_] if all(map(_is_knot, value)):
                return Schedule(tuple((float(t), float(v)) for t, v in value))
            case _:
                raise InputError(f"{short(value)} is no schedule; give {GRAMMAR}, or a list of pairs [t, value].")

    def to_json(self) -> float | list[list[float]]:
        """Return a number if the schedule is one, else its knots, [[t, value], ...]."""
        return self.knots[0][1] if self.is_constant else [list(knot) for knot in self.knots]

    def __str__(self) -> str:
        if self.is_constant:
            return _short(self.knots[0][1])
        return ",".join(f"{_short(t)}:{_short(value)}" for t, value in self.knots)

    def within(self, low: float, high: float) -> "Schedule":
        """Return the schedule for low <= t <= high, both ends included, and 0 elsewhere."""
        low, high = checked_window(low, high)
        knots = [knot for knot in self.knots if low <= knot[0] <= high]
        times = {t for t, _ in knots}
        if high < 1.0:
            start = [] if high in times else [(high, self(high))]
            knots = [(high, 0.0), *start, *knots]
        if low > 0.0:
            end = [] if low in times or low == high < 1.0 else [(low, self(low))]
            knots = [*knots, *end, (low, 0.0)]
        return Schedule(tuple(knots))

    @property
    def values(self) -> tuple[float, ...]:
        """The knots' values; every value of the schedule lies between the lowest and the highest of them."""
        return tuple(value for _, value in self.knots)

    @property
    def is_constant(self) -> bool:
        """Whether it is one number at all times."""
        return len(set(self.values)) == 1

    @property
    def is_stepped(self) -> bool:
        """Whether it takes no other values than its knots': constant but for jumps."""
        return all(v0 == v1 or t0 == t1 for (t0, v0), (t1, v1) in zip(self.knots, self.knots[1:]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_knot(value: Any) -> bool:
    match value:
        case [t, v]:
            return _is_number(t) and _is_number(v)
        case _:
            return False


ALWAYS = Schedule.constant(1.0)
NEVER = Schedule.constant(0.0)


def as_schedule(
    value: "float | str | tuple[float, float] | Schedule | Sequence[Sequence[float]]", name: str = "schedule"
) -> Schedule:
    """Return the schedule that is meant: a number, text, a window (low, high) of value 1, knots, or a schedule.

    Args:
        name: Of the setting, for messages.

    Raises:
        InputError: It is none of these.
    """
    match value:
        case Schedule():
            return value
        case (int() | float() as low, int() | float() as high):
            return Schedule.window(low, high)
        case _:
            try:
                return Schedule.from_json(value)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None


def checked_window(low: float, high: float, name: str = "t_window") -> tuple[float, float]:
    """Return a window of flow times as floats.

    Raises:
        InputError: It is empty or leaves [0, 1].
    """
    low, high = check_number(f"low of {name}", low), check_number(f"high of {name}", high)
    if not 0.0 <= low <= high <= 1.0:
        raise InputError(f"{name} must be (low, high) with 0 <= low <= high <= 1 (1 is noise), got {(low, high)}.")
    return low, high


def as_window(value: Any, name: str = "t_window") -> tuple[float, float]:
    """Return a pair of numbers as a window of flow times.

    Raises:
        InputError: It is no pair, empty, or leaves [0, 1].
    """
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))):  # pyright: ignore[reportUnknownArgumentType]
        raise InputError(f"{name} must be (low, high) with 0 <= low <= high <= 1 (1 is noise), got {short(value)}.")
    return checked_window(*value, name=name)  # pyright: ignore[reportUnknownArgumentType]


def _short(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
