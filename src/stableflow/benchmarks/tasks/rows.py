"""What a row of the task benchmark is: cases whose truth is known, the ways that are compared, and their figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.judges import Judge
from stableflow.benchmarks.settings import Setting
from stableflow.models.base import FlowModel
from stableflow.registry import Registry


@dataclass(frozen=True, eq=False)
class Cases:
    """Cases and who judges them."""

    cases: Sequence[Case]
    judges: Sequence[Judge]


@dataclass(frozen=True)
class Row:
    """A task that is measured.

    Args:
        cases: From a count, and whether sources are renders, with the exact target and region, instead of drawn.
        ways: Ours first, then the rivals; of a model, and whether sources are renders.
        figures: Columns of the table, in order.
        goals: The least (or, negative, the most) that is aimed at, by column; they are told, nothing fails by them.
    """

    cases: Callable[[int, bool], Cases]
    ways: Callable[[FlowModel, bool], Sequence[Setting]]
    figures: tuple[str, ...]
    goals: dict[str, float] = field(default_factory=dict)


ROWS: Registry[Row] = Registry("row of the task benchmark")
"""From a task's name to its row."""
