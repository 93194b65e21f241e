"""Checks what metrics are given, and turns masks into weights."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.metrics.card import Mask
from stableflow.types import Images

ROUNDING = 1e-4  # how far outside [0, 1] a picture may lie


def check_pair(source: Images, edit: Float[Tensor, "edits 3 edit_height edit_width"]) -> None:
    """Raise InputError unless both are pictures in [0, 1] of one shape."""
    if source.shape != edit.shape:
        raise InputError(
            f"Source and edit must have one shape, got {tuple(source.shape)} and {tuple(edit.shape)}. Resize one of "
            "them, or repeat the source for every edit."
        )
    for name, images in (("source", source), ("edit", edit)):
        low, high = (float(images.min()), float(images.max())) if images.numel() else (0.0, 0.0)
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise InputError(
                f"The {name} has values from {low:.3g} to {high:.3g}; metrics take pictures in [0, 1]. Divide 8-bit "
                "values by 255, and map [-1, 1] by x / 2 + 0.5."
            )


def mask_weights(mask: Mask | None, images: Images) -> Float[Tensor, "batch 1 height width"] | None:
    """Return the mask as one weight map a row, or None where there is no mask.

    Raises:
        InputError: Its size is not the pictures', or its values leave [0, 1].
    """
    if mask is None:
        return None
    batch, _, height, width = images.shape
    weights = mask if mask.ndim == 4 else mask[None, None]
    if weights.shape[2:] != (height, width) or weights.shape[0] not in (1, batch):
        raise InputError(
            f"The mask has shape {tuple(mask.shape)} for {batch} picture(s) of {height}x{width}; pass (height, width) "
            "or (batch, 1, height, width), resized to the pictures."
        )
    weights = weights.to(images).expand(batch, 1, height, width)
    if weights.min() < 0 or weights.max() > 1:
        raise InputError("A mask holds values in [0, 1]: 1 where to measure, 0 where not. Divide 8-bit values by 255.")
    return weights


def masked_mean(
    values: Float[Tensor, "batch channels height width"], weights: Float[Tensor, "batch 1 height width"] | None
) -> Float[Tensor, " batch"]:
    """Return sum(weights x values) / sum(weights) of every row; NaN where the weights are all 0."""
    if weights is None:
        return values.flatten(1).mean(1)
    weighted = (values.mean(1, keepdim=True) * weights).flatten(1).sum(1)
    return weighted / weights.flatten(1).sum(1)


def share_of_cells(
    weights: Float[Tensor, "batch 1 height width"], rows: int, columns: int
) -> Float[Tensor, "batch 1 rows columns"]:
    """Return how much of every cell of a coarser grid the mask covers, on the CPU."""
    return F.adaptive_avg_pool2d(weights.cpu(), (rows, columns))


def blackened(images: Images, weights: Float[Tensor, "batch 1 height width"] | None) -> Images:
    """Return the pictures, black where the weights are 0."""
    return images if weights is None else images * weights


def nothing_to_nan(
    values: Float[Tensor, " batch"], weights: Float[Tensor, "batch 1 height width"] | None
) -> Float[Tensor, " batch"]:
    """Return the values, NaN where the mask selects nothing."""
    if weights is None:
        return values
    return torch.where(weights.flatten(1).sum(1).to(values.device) > 0, values, torch.nan)
