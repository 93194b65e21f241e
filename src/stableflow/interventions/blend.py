"""How strongly, where and when a source's keys and values replace an edit's."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError, TokenLayoutError
from stableflow.models.base import TokenLayout

WHOLE_FLOW = (0.0, 1.0)


@dataclass(frozen=True)
class Blend:
    """features + amount (source - features), with amount = weight x mask inside the time window and 0 outside.

    Args:
        weight: 1 replaces, 0 leaves alone.
        token_mask: Amount for each image token in [0, 1], shape (token_rows, token_columns), or with one such map
            for each edit row in front; None is 1 everywhere.
        t_window: Closed interval of flow times (low, high) in which the blend acts; 1 is noise.
    """

    weight: float = 1.0
    token_mask: Float[Tensor, "*edits token_rows token_columns"] | None = None
    t_window: tuple[float, float] = WHOLE_FLOW

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise InputError(f"weight must lie in [0, 1] (1 injects fully), got {self.weight}.")
        low, high = self.t_window
        if not 0.0 <= low <= high <= 1.0:
            raise InputError(
                f"t_window must be (low, high) with 0 <= low <= high <= 1 (1 is noise), got {self.t_window}."
            )
        if self.token_mask is not None and self.token_mask.ndim not in (2, 3):
            raise InputError(
                "token_mask must have shape (token_rows, token_columns) or (edits, token_rows, token_columns), got "
                f"{tuple(self.token_mask.shape)}."
            )

    @property
    def replaces(self) -> bool:
        """Whether, where it acts, nothing of the edit's own is left."""
        return self.weight == 1.0 and self.token_mask is None

    def acts_at(self, t: float) -> bool:
        """Whether anything is blended at flow time t."""
        return self.weight > 0.0 and self.t_window[0] <= t <= self.t_window[1]

    def apply(
        self,
        features: Float[Tensor, "edits image_tokens dim"],
        source: Float[Tensor, "1 image_tokens dim"],
        layout: TokenLayout,
    ) -> Float[Tensor, "edits image_tokens dim"]:
        """Return the blended features; exactly the source's where the amount is 1, exactly their own where 0."""
        source = source.expand_as(features)
        if self.token_mask is None:
            return source if self.weight == 1.0 else torch.lerp(features, source, self.weight)
        amount = self.weight * self._mask_for(layout, rows=features.shape[0]).to(features)
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
