"""Which layers are vital, given how vital each is."""

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count, check_number
from stableflow.errors import InputError

Scores = Float[Tensor, " layers"]


@runtime_checkable
class Choice(Protocol):
    """A rule that draws a boundary; the layers at or above it are chosen."""

    def boundary(self, vitality: Scores) -> float: ...


@dataclass(frozen=True)
class Threshold:
    """Layers of at least this vitality: the paper's V = { l : vitality(l) >= threshold }."""

    value: float

    def __post_init__(self) -> None:
        check_number("threshold", self.value)

    def boundary(self, vitality: Scores) -> float:
        return self.value

    def __str__(self) -> str:
        return f"threshold:{self.value:g}"


@dataclass(frozen=True)
class Top:
    """The `count` most vital layers."""

    count: int

    def __post_init__(self) -> None:
        check_count("top", self.count)

    def boundary(self, vitality: Scores) -> float:
        if not 1 <= self.count < len(vitality):
            raise InputError(f"top:{self.count} needs 1 to {len(vitality) - 1} of these {len(vitality)} layers.")
        ranked = vitality.sort(descending=True).values
        return float(ranked[self.count - 1] + ranked[self.count]) / 2

    def __str__(self) -> str:
        return f"top:{self.count}"


@dataclass(frozen=True)
class Gap:
    """The layers above the largest gap in the ranking; at most half of all layers."""

    def boundary(self, vitality: Scores) -> float:
        ranked = vitality.sort(descending=True).values
        most = max(1, len(ranked) // 2)
        after = int((ranked[:most] - ranked[1 : most + 1]).argmax())
        return float(ranked[after] + ranked[after + 1]) / 2

    def __str__(self) -> str:
        return "gap"


def choose(vitality: Scores, choice: Choice) -> tuple[int, ...]:
    """Return the chosen layers in execution order."""
    return tuple(torch.nonzero(vitality >= choice.boundary(vitality)).flatten().tolist())


def parse_choice(text: str) -> Choice:
    """Read "gap", "top:9" or "threshold:0.2"."""
    if text == "gap":
        return Gap()
    if match := re.fullmatch(r"top:(\d{1,6})", text):
        return Top(int(match[1]))
    if match := re.fullmatch(r"threshold:(\d*\.?\d+)", text):
        return Threshold(float(match[1]))
    raise InputError(f"The set is chosen by gap, top:COUNT or threshold:VALUE, got {text!r}.")
