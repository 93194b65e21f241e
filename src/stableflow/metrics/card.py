"""What every metric is and says of itself; metrics are found by name without loading any weights."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.registry import Registry
from stableflow.types import Images

Mask = (
    Bool[Tensor, "masks 1 mask_height mask_width"]
    | Float[Tensor, "masks 1 mask_height mask_width"]
    | Bool[Tensor, "mask_height mask_width"]
    | Float[Tensor, "mask_height mask_width"]
)
"""Where to measure: 1 or True counts, 0 does not. One for all rows, or one a row."""

PromptPairs = Sequence[tuple[str, str]]
"""(source prompt, edited prompt), one a row."""


@dataclass(frozen=True)
class MetricCard:
    """What must be known of a metric to read its numbers.

    Args:
        name: As in `METRICS`.
        low, high: Its range.
        higher_is_better: Better preserved or better edited, whichever it measures.
        preprocessing: What is done to pictures in [0, 1] first.
        masking: What a mask does.
        needs_prompts: Whether it reads the prompts.
        backbone, weights: Name of the network behind it and a digest of its weights; None where there is none.
    """

    name: str
    low: float
    high: float
    higher_is_better: bool
    preprocessing: str
    masking: str
    needs_prompts: bool = False
    backbone: str | None = None
    weights: str | None = None


@runtime_checkable
class Metric(Protocol):
    """Compares source and edited pictures row by row."""

    facts: ClassVar[MetricCard]
    """The card without its weights: known before anything is loaded."""

    @property
    def card(self) -> MetricCard: ...

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        """Return one value a row; NaN where the mask selects nothing."""
        ...


METRICS: Registry[type[Metric]] = Registry("metric")


@dataclass(frozen=True, eq=False)
class Scores:
    """Values with the card of the metric that gave them."""

    card: MetricCard
    values: Float[Tensor, " batch"]

    def record(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return dataclasses.asdict(self.card) | {"values": self.values.tolist()}


def score(
    metric: Metric, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
) -> Scores:
    """Measure, and name what measured."""
    return Scores(metric.card, metric(source, edit, prompts=prompts, mask=mask))


def checked_prompts(name: str, prompts: PromptPairs | None, rows: int) -> tuple[list[str], list[str]]:
    """Return source prompts and edited prompts.

    Raises:
        InputError: They are missing, or not one pair a row.
    """
    if prompts is None or len(prompts) != rows:
        given = "none" if prompts is None else f"{len(prompts)}"
        raise InputError(
            f"{name} needs one (source prompt, edited prompt) a row: {rows} here, got {given}. Pass prompts=[...]."
        )
    return [source for source, _ in prompts], [edited for _, edited in prompts]
