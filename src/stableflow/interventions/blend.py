"""How strongly, where and when a source's keys and values replace an edit's."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from stableflow.errors import InputError, TokenLayoutError
from stableflow.flow.schedule import Schedule, as_schedule, as_window
from stableflow.interventions.moments import matched
from stableflow.models.base import TokenLayout
from stableflow.region import Region

WHOLE_FLOW = (0.0, 1.0)


@dataclass(frozen=True)
class Blend:
    """features + amount (source - features), with amount = weight(t) x where.

    Args:
        weight: 1 replaces, 0 leaves alone; a number, or a schedule over flow time.
        token_mask: Where, as an amount for each image token in [0, 1], shape (token_rows, token_columns), or with one
            such map for each edit row in front; None is 1 everywhere.
        t_window: Closed interval of flow times (low, high) outside of which the weight is 0; 1 is noise.
        region: Where, at the pixels of the padded picture, instead of a token mask: each token takes the mean of its
            pixels. What an edit may change is the region, so that what is held of its source is `~region`.
        reads: For each image token the one of the source that it takes; its own when None. Keys are met before they
            are turned to their position, so that a key which is taken from elsewhere is turned to where it is read.
        low: Only the low band of the source is taken, at the statistics of the edit: see `low_band`.
    """

    weight: float | Schedule = 1.0
    token_mask: Float[Tensor, "*edits token_rows token_columns"] | None = None
    t_window: tuple[float, float] = WHOLE_FLOW
    region: Region | None = None
    reads: Int[Tensor, " image_tokens"] | None = None
    low: bool = False

    def __post_init__(self) -> None:
        if not all(0.0 <= value <= 1.0 for value in self.schedule.values):
            raise InputError(f"weight must lie in [0, 1] (1 injects fully), got {self.weight}.")
        if self.token_mask is not None and self.region is not None:
            raise InputError("Give token_mask or region, not both: each says where the source's features go.")
        if self.token_mask is not None:
            object.__setattr__(self, "token_mask", _checked_mask(self.token_mask))

    @cached_property
    def schedule(self) -> Schedule:
        """The weight at every flow time."""
        return as_schedule(self.weight, "weight").within(*as_window(self.t_window))

    @property
    def replaces(self) -> bool:
        """Whether, where it acts, nothing of the edit's own is left."""
        values = set(self.schedule.values)
        everywhere = self.token_mask is None and self.region is None and self.reads is None and not self.low
        return self.schedule.is_stepped and 1.0 in values <= {0.0, 1.0} and everywhere

    def acts_at(self, t: float) -> bool:
        """Whether anything is blended at flow time t."""
        return self.schedule(t) > 0.0

    def twice(self) -> "Blend":
        """Return the same for a batch in which the edits' rows are there twice; one map goes with any number."""
        mask, region = self.token_mask, self.region
        if mask is not None and mask.ndim == 3:
            return replace(self, token_mask=mask.repeat(2, 1, 1))
        return (
            self if region is None or len(region) == 1 else replace(self, region=Region(region.amount.repeat(2, 1, 1)))
        )

    def apply(
        self,
        features: Float[Tensor, "edits image_tokens dim"],
        source: Float[Tensor, "1 image_tokens dim"],
        layout: TokenLayout,
        t: float,
    ) -> Float[Tensor, "edits image_tokens dim"]:
        """Return the blended features; exactly the source's where the amount is 1, exactly their own where 0."""
        if self.reads is not None:
            source = source[:, self._checked_reads(layout)]
        if self.low:
            source = low_band(features, source, (layout.image_rows, layout.image_columns))
        source, weight = source.expand_as(features), self.schedule(t)
        where = self._amounts(layout, rows=features.shape[0])
        if where is None:
            return source if weight == 1.0 else torch.lerp(features, source, weight)
        where = layout.computed(where)
        return torch.lerp(features, source, weight * where.to(features))

    def _checked_reads(self, layout: TokenLayout) -> Int[Tensor, " image_tokens"]:
        assert self.reads is not None
        if self.reads.shape != (layout.image_tokens,):
            raise TokenLayoutError(
                f"reads says for {len(self.reads)} tokens which one of the source they take, but this pass has "
                f"{layout.image_rows} x {layout.image_columns} image tokens."
            )
        return self.reads

    @cached_property
    def _on_grids(self) -> dict[tuple[int, int], Tensor]:
        """The region at the tokens of each layout met: looking at every pixel once is enough."""
        return {}

    def _amounts(self, layout: TokenLayout, rows: int) -> Float[Tensor, "#edits image_tokens 1"] | None:
        grid = (layout.image_rows, layout.image_columns)
        if self.token_mask is not None:
            mask = self.token_mask if self.token_mask.ndim == 3 else self.token_mask[None]
            if mask.shape[1:] != grid:
                raise TokenLayoutError(
                    f"token_mask has shape {tuple(self.token_mask.shape)}, but this pass has {rows} edit row(s) of "
                    f"{grid[0]} x {grid[1]} image tokens. Resize the mask to the token grid."
                )
            where = rearrange(mask, "edits rows columns -> edits (rows columns) 1")
        elif self.region is not None:
            if grid not in self._on_grids:
                self._on_grids[grid] = self.region.tokens(grid)
            where = self._on_grids[grid]
        else:
            return None
        if where.shape[0] not in (1, rows):
            raise TokenLayoutError(
                f"{where.shape[0]} maps say where the source's features go, but this pass has {rows} edit row(s) of "
                f"{grid[0]} x {grid[1]} image tokens. Give one map, or one an edit."
            )
        return where


def low_band(
    features: Float[Tensor, "edits image_tokens dim"],
    source: Float[Tensor, "1 image_tokens dim"],
    grid: tuple[int, int],
) -> Float[Tensor, "edits image_tokens dim"]:
    """Return features whose low band is the source's: x + low(s' - x), s' the source at the mean and spread of x.

    Low is the mean over 3 x 3 tokens. What differs from token to token stays the edit's own, and so does how strong
    each channel is: what a picture shows is taken, and not how it looks.
    """
    gap = matched(source.expand_as(features), features) - features
    cells = rearrange(gap, "edits (rows columns) dim -> edits dim rows columns", rows=grid[0])
    low = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    return features + rearrange(low, "edits dim rows columns -> edits (rows columns) dim")


def _checked_mask(mask: Tensor | np.ndarray) -> Tensor:
    if getattr(mask, "ndim", 0) not in (2, 3):
        raise InputError(
            "token_mask must have shape (token_rows, token_columns) or (edits, token_rows, token_columns), got "
            f"{tuple(mask.shape) if hasattr(mask, 'shape') else repr(mask)[:60]}."
        )
    try:
        tensor = torch.as_tensor(mask)
    except TypeError as error:
        raise InputError(f"token_mask must be floats in [0, 1], got an array of {mask.dtype}.") from error
    if not tensor.is_floating_point() or not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(f"token_mask must be floats in [0, 1], got {tensor.dtype}, {tensor.min()} to {tensor.max()}.")
    return tensor
