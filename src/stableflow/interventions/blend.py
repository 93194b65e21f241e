"""How strongly, where and when a source's keys and values replace an edit's."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError, TokenLayoutError
from stableflow.flow.schedule import ALWAYS, Schedule, as_schedule, as_window
from stableflow.models.base import TokenLayout

WHOLE_FLOW = (0.0, 1.0)


@dataclass(frozen=True)
class Blend:
    """features + amount (source - features), with amount = weight at this flow time x mask at this token.

    Args:
        weight: 1 replaces, 0 leaves alone; a number, or a schedule over flow time.
        token_mask: Amount for each image token in [0, 1], shape (token_rows, token_columns), or with one such map
            for each edit row in front; None is 1 everywhere.
        t_window: Closed interval of flow times (low, high) in which the blend acts; 1 is noise.
    """

    weight: float | Schedule = ALWAYS
    token_mask: Float[Tensor, "*edits token_rows token_columns"] | None = None
    t_window: tuple[float, float] = WHOLE_FLOW

    def __post_init__(self) -> None:
        weight = as_schedule(self.weight).within(*as_window(self.t_window))
        if not all(0.0 <= value <= 1.0 for value in weight.values):
            raise InputError(f"weight must lie in [0, 1] (1 injects fully), got {self.weight}.")
        object.__setattr__(self, "_amount", weight)
        if self.token_mask is not None:
            object.__setattr__(self, "token_mask", _checked_mask(self.token_mask))

    @property
    def amount(self) -> Schedule:
        """The weight within the time window, 0 outside."""
        return self._amount  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]

    @property
    def replaces(self) -> bool:
        """Whether, where it acts, nothing of the edit's own is left."""
        return self.token_mask is None and set(self.amount.values) <= {0.0, 1.0} and self.amount.is_stepped

    def acts_at(self, t: float) -> bool:
        """Whether anything is blended at flow time t."""
        return self.amount(t) > 0.0

    def apply(
        self,
        features: Float[Tensor, "edits image_tokens dim"],
        source: Float[Tensor, "1 image_tokens dim"],
        layout: TokenLayout,
        t: float,
    ) -> Float[Tensor, "edits image_tokens dim"]:
        """Return the features blended at t; exactly the source's where the amount is 1, exactly their own where 0."""
        source, weight = source.expand_as(features), self.amount(t)
        if self.token_mask is None:
            return source if weight == 1.0 else torch.lerp(features, source, weight)
        amount = weight * self._mask_for(layout, rows=features.shape[0]).to(features)
        return torch.lerp(features, source, amount)

    def _mask_for(self, layout: TokenLayout, rows: int) -> Tensor:
        assert self.token_mask is not None
        mask = self.token_mask if self.token_mask.ndim == 3 else self.token_mask[None]
        expected = (layout.image_rows, layout.image_columns)
        if mask.shape[1:] != expected or mask.shape[0] not in (1, rows):
            raise TokenLayoutError(
                f"token_mask has shape {tuple(self.token_mask.shape)}, but this pass has {rows} edit row(s) of "
                f"{expected[0]} x {expected[1]} image tokens. Resize the mask to the token grid."
            )
        return rearrange(mask, "edits rows columns -> edits (rows columns) 1")


def _checked_mask(mask: object) -> Tensor:
    tensor = torch.from_numpy(mask) if isinstance(mask, np.ndarray) else mask
    if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 3) or not tensor.is_floating_point():
        given = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(mask).__name__
        raise InputError(
            "token_mask must be floats of shape (token_rows, token_columns) or (edits, token_rows, token_columns), got "
            f"{given}."
        )
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(f"token_mask must lie in [0, 1], got {tensor.min():g} to {tensor.max():g}.")
    return tensor
