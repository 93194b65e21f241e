"""What a monitor asks at /metrics, in Prometheus' text format."""

from collections.abc import Iterator, Mapping

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How long things took, in seconds, by upper bounds."""

    def __init__(self) -> None:
        self._counts, self._sum = [0] * (len(BOUNDS) + 1), 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[sum(seconds > bound for bound in BOUNDS)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """Yield it as a monitor reads it."""
        below = 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self._counts):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {below}"


def exposition(counts: Mapping[str, int], now: Mapping[str, int], took: Histogram) -> str:
    """Return the numbers of a desk.

    Args:
        counts: Requests by outcome, since the start.
        now: Requests by where they are.
        took: From a request's arrival to its end.
    """
    lines = ["# HELP stableflow_requests_total Requests by how they ended.", "# TYPE stableflow_requests_total counter"]
    lines += [f'stableflow_requests_total{{outcome="{name}"}} {count}' for name, count in sorted(counts.items())]
    lines += ["# HELP stableflow_requests Requests that wait or run now.", "# TYPE stableflow_requests gauge"]
    lines += [f'stableflow_requests{{state="{name}"}} {count}' for name, count in now.items()]
    lines += ["# HELP stableflow_request_seconds From a request's arrival to its end.",
              "# TYPE stableflow_request_seconds histogram", *took.lines("stableflow_request_seconds")]  # fmt: skip
    return "\n".join(lines) + "\n"
