"""How alike two rankings, or two sets, of layers are."""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError


def rank_correlation(a: Float[Tensor, " layers"], b: Float[Tensor, " other_layers"]) -> float:
    """Return Spearman's rank correlation, in [-1, 1]; 1 is the same order."""
    if len(a) != len(b):
        raise InputError(f"Two rankings are compared over the same layers; these have {len(a)} and {len(b)}.")
    return float(torch.corrcoef(torch.stack([_ranks(a), _ranks(b)]))[0, 1])


def jaccard(a: Collection[int], b: Collection[int]) -> float:
    """Return |a and b| / |a or b|, in [0, 1]; 1 for equal sets."""
    union = set(a) | set(b)
    return len(set(a) & set(b)) / len(union) if union else 1.0


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values share the mean of theirs."""
    less = (values[:, None] > values[None]).double().sum(1)
    equal = (values[:, None] == values[None]).double().sum(1)
    return less + (equal - 1) / 2
