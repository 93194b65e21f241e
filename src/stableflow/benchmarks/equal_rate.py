"""Comparing curves at one edit rate: who keeps more of the source when all make as many edits?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from stableflow.benchmarks.summary import summarise
from stableflow.jobs.cells import Record


def kept_at(points: Sequence[tuple[float, float]], rate: float) -> float | None:
    """Interpolate what is kept at an edit rate along a curve of (edited, kept); None outside the curve.

    Where the curve passes the rate more than once, the most that is kept.
    """
    found = []
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if min(x0, x1) <= rate <= max(x0, x1):
            found.append(max(y0, y1) if x0 == x1 else y0 + (rate - x0) / (x1 - x0) * (y1 - y0))
    return max(found, default=None)


def curves(
    records: Sequence[Record], settings: Mapping[str, str], *, edited: str, kept: str, start: str = "none"
) -> dict[str, list[tuple[float, float]]]:
    """Return the points (edited, kept) of every curve, all from the setting `start`, in the order of the records.

    Args:
        settings: The curve of each setting, by name; empty for none.
        start: A setting that every curve begins with.
    """
    summary = summarise(records)
    begin = (summary[start][edited].mean, summary[start][kept].mean)
    points: dict[str, list[tuple[float, float]]] = defaultdict(lambda: [begin])
    for name, row in summary.items():
        if settings.get(name):
            points[settings[name]].append((row[edited].mean, row[kept].mean))
    return dict(points)
