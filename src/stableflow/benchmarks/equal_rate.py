"""Comparing curves at one edit rate: who keeps most of the source when all make at least as many edits?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from stableflow.benchmarks.summary import summarise
from stableflow.jobs.cells import Record


def kept_at(points: Sequence[tuple[float, float]], rate: float) -> float | None:
    """Return the most that a curve of (edited, kept) keeps while making at least this share of the edits.

    Between its points a curve is a straight line. None where it makes fewer edits all along.
    """
    found = [kept for edited, kept in points if edited >= rate]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if min(x0, x1) < rate < max(x0, x1):
            found.append(y0 + (rate - x0) / (x1 - x0) * (y1 - y0))
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
