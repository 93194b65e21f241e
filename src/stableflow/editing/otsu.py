"""A threshold between two groups of values."""

import torch
from jaxtyping import Float
from torch import Tensor


def otsu_threshold(values: Float[Tensor, " values"]) -> float:
    """Return the value that splits these into the two groups whose means lie furthest apart, w0 w1 (m0 - m1)^2.

    Values above it belong to the upper group; where all are equal, none does.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms" (1979), over the values themselves.
    """
    ordered = values.double().flatten().sort().values
    if len(ordered) < 2:
        return float(ordered[-1])
    below = torch.arange(1, len(ordered), dtype=torch.float64)
    sums = ordered.cumsum(0)
    above = len(ordered) - below
    apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    between = below * above * apart.square()
    between[ordered[1:] == ordered[:-1]] = -1  # no cut between equal values
    best = int(between.argmax())
    return float(ordered[best]) if between[best] > 0 else float(ordered[-1])
