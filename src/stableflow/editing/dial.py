"""From the dial's strength to how much of the source is held."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.run import Run
from stableflow.errors import InputError

DIAL = ((0.0, 1.0), (0.1, 0.60), (0.2, 0.48), (0.3, 0.393), (0.4, 0.343), (0.5, 0.293), (0.6, 0.245), (0.7, 0.198),
        (0.8, 0.137), (0.9, 0.074), (1.0, 0.0))  # fmt: skip
"""From strength to weight: stops at which edits are equally far apart (docs/concepts/dial.md)."""


def dial_weight(strength: float) -> float:
    """Return the weight at which all layers are held for a strength in [0, 1]: linear between the stops of `DIAL`."""
    strengths, weights = zip(*DIAL)
    return float(np.interp(strength, strengths, weights))


def brings_strengths(run: Run) -> bool:
    """Whether edits of a run bring strengths of their own."""
    return any(wish.strength is not None for wish in run.wishes)


def refuse_strengths(run: Run, what: str) -> None:
    """Raise InputError if edits bring strengths of their own, which do not go with something else that was given."""
    if brings_strengths(run):
        raise InputError(f"Edits that differ in strength do not go with {what}; give one strength, or one edit a call.")


def weights_by_row(run: Run, strength: float | None) -> Float[Tensor, "edits token_rows token_columns"]:
    """Return how much of each edit's tokens is held, inside the region if there is one.

    Args:
        strength: Of edits that bring none.

    Raises:
        InputError: There is none for them.
    """
    strengths = [strength if wish.strength is None else wish.strength for wish in run.wishes]
    if None in strengths:
        raise InputError("Some edits bring a strength and others do not; give the editor one for the others.")
    made, side = run.source.fingerprint, run.model.pixel_multiple
    rows, columns = made.height // side, made.width // side
    weights = torch.tensor([dial_weight(strength or 0.0) for strength in strengths])[:, None, None]
    if run.region is None:
        return weights.expand(-1, rows, columns)
    inside = rearrange(run.whole_region.tokens((rows, columns)), "edits (y x) 1 -> edits y x", y=rows)
    return weights * inside
