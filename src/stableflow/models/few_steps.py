"""Steps and guidance that the makers of a checkpoint, or of a LoRA that distils one, recommend."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from stableflow.models.known import known_by

FEW = 10
"""Up to so many steps a checkpoint is distilled: made to be run in that many, and hardly better in more."""

LORAS: Mapping[str, tuple[int, float]] = {
    r"qwen-image-lightning-4steps": (4, 1.0),
    r"qwen-image-lightning-8steps": (8, 1.0),
    r"qwen-image-edit.*lightning-4steps": (4, 1.0),
    r"qwen-image-edit.*lightning-8steps": (8, 1.0),
    r"hyper-flux.*-8steps": (8, 3.5),
    r"hyper-flux.*-16steps": (16, 3.5),
    r"hyper-sd3-4steps": (4, 1.0),
    r"hyper-sd3-8steps": (8, 5.0),
    r"flux.1-turbo-alpha": (8, 3.5),
}
"""Steps and guidance by what the files and repositories of these LoRAs are called."""


@dataclass(frozen=True)
class Usual:
    """What is recommended.

    Args:
        steps: Solver steps.
        guidance: Guidance scale, as this library counts it; 1 is none.
        source: Whose recommendation it is: the checkpoint's short name or the LoRA's file.
    """

    steps: int
    guidance: float
    source: str

    @property
    def few(self) -> bool:
        """Whether the model is one for few steps."""
        return self.steps <= FEW


def usual(model: str, loras: Sequence[str] = ()) -> Usual | None:
    """Return what is recommended for a checkpoint by its name or hub id, and for the last LoRA that says something.

    Args:
        loras: As given to `load`, weights included.
    """
    for lora in reversed(loras):
        for pattern, (steps, guidance) in LORAS.items():
            if re.search(pattern, str(lora).lower()):
                return Usual(steps, guidance, PurePath(lora).name)
    known = known_by(model)
    return None if known is None else Usual(known.steps, known.guidance, model)
