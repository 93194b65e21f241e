"""A day of serving without the machines: requests arrive, find their session or not, wait, and share batches.

    python -m stableflow.serving.simulate --rate 2 --replicas 4 --edit 0.9 --row 0.4 --source 3

Every time in it is an assumption; `tests/serving/load.py` measures them and holds the outcome against a real run.
"""

import argparse
import dataclasses
import heapq
import json
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stableflow.checks import check_choice, check_count, check_number


@dataclass(frozen=True)
class Assumptions:
    """What a day is like. Times are in seconds.

    Args:
        rate: Requests a second, arriving at random (Poisson).
        sessions: Pictures that are edited, each as often as another.
        replicas, batch: As in `Serving`.
        kept: Sessions that a replica has room for.
        edit, row: What a batch of one edit takes, and every further edit in it.
        source: What making a session takes; `disk`: loading it where it was saved, None where none are.
        door: What a request takes beside the replica's work.
        spread: Of the times: "fixed", "exponential" around them, or by factors that were measured.
        waiting: Requests that may wait or run; others are refused.
    """

    rate: float = 1.0
    sessions: int = 100
    replicas: int = 1
    batch: int = 1
    kept: int = 50
    edit: float = 1.0
    row: float = 0.5
    source: float = 2.0
    disk: float | None = None
    door: float = 0.0
    spread: str | tuple[float, ...] = "fixed"
    waiting: int = 10**9

    def __post_init__(self) -> None:
        for name in ("rate", "edit"):
            check_number(name, getattr(self, name), 0, above=True)
        for name in ("row", "source", "door"):
            check_number(name, getattr(self, name), 0)
        for name in ("sessions", "replicas", "batch", "kept", "waiting"):
            check_count(name, getattr(self, name))
        if not isinstance(self.spread, tuple):
            check_choice("spread", self.spread, ["fixed", "exponential"])


@dataclass(frozen=True)
class Outcome:
    """What came of a day.

    Args:
        latencies: Of the requests that were served, from arrival to answer, in order of their end.
        seconds: From the first arrival to the last answer.
        busy: Share of that time for which replicas worked.
        made, loaded: Sessions that were made, and loaded from disk.
        batches: Batches that were drawn.
        refused: Requests that found the queue full.
    """

    latencies: Sequence[float]
    seconds: float
    busy: float
    made: int
    loaded: int
    batches: int
    refused: int

    def quantile(self, share: float) -> float:
        """Return the latency that this share of requests stays below."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def summary(self) -> dict[str, float]:
        """Return the numbers that one looks at."""
        served = len(self.latencies)
        return {
            "served": served, "refused": self.refused, "a second": round(served / max(self.seconds, 1e-9), 3),
            "mean s": round(sum(self.latencies) / max(1, served), 3), "p50 s": round(self.quantile(0.5), 3),
            "p95 s": round(self.quantile(0.95), 3), "busy": round(self.busy, 3), "sessions made": self.made,
            "sessions loaded": self.loaded, "edits a batch": round(served / max(1, self.batches), 2),
        }  # fmt: skip


@dataclass
class _Replica:
    kept: "OrderedDict[int, None]" = field(default_factory=OrderedDict)
    queue: "deque[tuple[float, int]]" = field(default_factory=deque)  # arrival, session
    drawn: list[float] = field(default_factory=list)  # arrivals of the batch that it draws

    @property
    def ongoing(self) -> int:
        return len(self.queue) + len(self.drawn)


class _Day:
    def __init__(self, given: Assumptions, seed: int):
        self.given, self.random = given, random.Random(seed)
        self.replicas = [_Replica() for _ in range(given.replicas)]
        self.outside: deque[tuple[float, int]] = deque()  # requests that no replica has taken
        self.saved: set[int] = set()
        self.ends: list[tuple[float, int]] = []
        self.latencies: list[float] = []
        self.busy, self.made, self.loaded, self.batches, self.refused = 0.0, 0, 0, 0, 0

    def arrive(self, now: float) -> None:
        if len(self.outside) + sum(replica.ongoing for replica in self.replicas) >= self.given.waiting:
            self.refused += 1
            return
        self.outside.append((now, self.random.randrange(self.given.sessions)))
        self.hand_out(now)

    def hand_out(self, now: float) -> None:
        """Give requests to their session's replica; to the next one where it has a batch in work and one in wait."""
        room = 2 * self.given.batch
        while self.outside:
            arrival, session = self.outside[0]
            home = (session * 2654435761 >> 8) % self.given.replicas  # any fixed spread
            order = [(home + step) % self.given.replicas for step in range(self.given.replicas)]
            free = next((number for number in order if self.replicas[number].ongoing < room), None)
            if free is None:
                return
            self.outside.popleft()
            self.replicas[free].queue.append((arrival, session))
            self.begin(free, now)

    def begin(self, number: int, now: float) -> None:
        """Draw what came first, with what waits for the same session."""
        replica = self.replicas[number]
        if replica.drawn or not replica.queue:
            return
        session = replica.queue[0][1]
        alike = [one for one in replica.queue if one[1] == session][: self.given.batch]
        for one in alike:
            replica.queue.remove(one)
        replica.drawn = [arrival for arrival, _ in alike]
        took = self.spread(self.session_seconds(replica, session))
        took += self.spread(self.given.edit + self.given.row * (len(alike) - 1))
        self.busy += took
        self.batches += 1
        heapq.heappush(self.ends, (now + took, number))

    def session_seconds(self, replica: _Replica, session: int) -> float:
        """Return what it takes until the session is there, and keep it."""
        here = session in replica.kept
        replica.kept[session] = None
        replica.kept.move_to_end(session)
        if len(replica.kept) > self.given.kept:
            replica.kept.popitem(last=False)
        if here:
            return 0.0
        if self.given.disk is not None and session in self.saved:
            self.loaded += 1
            return self.given.disk
        self.made += 1
        self.saved.add(session)
        return self.given.source

    def end(self, number: int, now: float) -> None:
        replica = self.replicas[number]
        self.latencies += [now - arrival + self.given.door for arrival in replica.drawn]
        replica.drawn = []
        self.begin(number, now)
        self.hand_out(now)

    def spread(self, seconds: float) -> float:
        if self.given.spread == "fixed" or not seconds:
            return seconds
        if isinstance(self.given.spread, tuple):
            return seconds * self.random.choice(self.given.spread)
        return self.random.expovariate(1 / seconds)


def simulate(given: Assumptions, requests: int = 10_000, seed: int = 0) -> Outcome:
    """Return what comes of so many requests."""
    day, now, left = _Day(given, seed), 0.0, check_count("requests", requests)
    coming = day.random.expovariate(given.rate)
    while left or day.ends:
        if left and (not day.ends or coming <= day.ends[0][0]):
            now, left = coming, left - 1
            coming += day.random.expovariate(given.rate)
            day.arrive(now)
        else:
            now, number = heapq.heappop(day.ends)
            day.end(number, now)
    return Outcome(
        day.latencies, now, day.busy / max(now * given.replicas, 1e-9), day.made, day.loaded, day.batches, day.refused
    )


def main() -> None:
    """Simulate what the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m stableflow.serving.simulate", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    for known in dataclasses.fields(Assumptions):
        kind = {"spread": str}.get(known.name, type(known.default) if known.default is not None else float)
        parser.add_argument(f"--{known.name}", type=kind, default=known.default)
    values = vars(parser.parse_args())
    requests, seed = values.pop("requests"), values.pop("seed")
    json.dump(simulate(Assumptions(**values), requests, seed).summary(), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
