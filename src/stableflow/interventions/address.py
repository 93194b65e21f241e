"""Where in a run of passes a projection is met."""

from dataclasses import dataclass

from stableflow.models.base import Branch, Forward, Part

Visit = tuple[float, int]
"""A pass: its flow time, and how many passes before it had this time."""


@dataclass(frozen=True, order=True)
class Address:
    """Which projection of which pass: time, occurrence, layer, key or value, branch, and attention of the block."""

    t: float
    occurrence: int
    layer: int
    part: Part
    branch: Branch = "conditional"
    attention: int = 0

    @property
    def visit(self) -> Visit:
        return self.t, self.occurrence


def address_of(forward: Forward, layer: int, part: Part) -> Address:
    """Return the address of a projection in the pass under way."""
    return Address(forward.t, forward.occurrence, layer, part, forward.branch, forward.attention)
