"""Tables of a benchmark: means with bootstrap intervals, overall and by category."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stableflow.jobs.cells import Record

RESAMPLES = 2000


@dataclass(frozen=True)
class Figure:
    """A mean over cases with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


Summary = Mapping[str, Mapping[str, Figure]]
"""By setting, by figure."""


def summarise(records: Sequence[Record], *, category: str | None = None) -> Summary:
    """Return the mean of every figure of every setting, in the order of the records.

    Failed trials and figures that are not a number (an empty mask) are left out; `failures` counts the former.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if "error" in record or (category is not None and record["category"] != category):
            continue
        for name, row in record["figures"].items():
            values[record["setting"]][name] += [value for value in row if value is not None and math.isfinite(value)]
    return {
        setting: {name: _figure(row) for name, row in figures.items() if row} for setting, figures in values.items()
    }


def failures(records: Sequence[Record]) -> dict[str, int]:
    """Return how many trials of each setting failed, where any did."""
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        if "error" in record:
            counts[record["setting"]] += 1
    return dict(counts)


def categories(records: Sequence[Record]) -> list[str]:
    """Return the categories in the order of the records."""
    return list(dict.fromkeys(record["category"] for record in records))


def markdown(summary: Summary, figures: Sequence[str] | None = None) -> str:
    """Return a table: a row a setting, a column a figure."""
    names = figures or list(dict.fromkeys(name for row in summary.values() for name in row))
    lines = ["| setting | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for setting, row in summary.items():
        lines.append(f"| {setting} | " + " | ".join(str(row.get(name, "")) for name in names) + " |")
    return "\n".join(lines)


def _figure(values: Sequence[float]) -> Figure:
    sample = np.asarray(values)
    drawn = np.random.default_rng(0).integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.percentile(sample[drawn].mean(axis=1), [2.5, 97.5])
    return Figure(float(sample.mean()), float(low), float(high), len(sample))
