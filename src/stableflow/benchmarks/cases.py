"""What a benchmark asks of an editor, one picture and one kind of edit at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.images import PictureLike


@dataclass(frozen=True, eq=False)
class Case:
    """A source and the edits to make of it.

    Args:
        id: Unique within its dataset, and the same in every run: what results are filed under.
        prompt: What the source shows.
        edits: The edited prompts.
        category: Kind of edit, by which results are summarised.
        seed: Of a source to draw; None where a picture is given.
        image: The source picture: a file, a PIL image, or a tensor (3, height, width) in [0, 1].
        mask: True where the edit may change the picture; None where nobody marked it.
        target: The exactly right result, where it is known; of one edited prompt only.
        call: What settings may hand to `edit` that differs from case to case, by its arguments' names.

    Raises:
        InputError: The case is incomplete or contradicts itself.
    """

    id: str
    prompt: str
    edits: tuple[str, ...]
    category: str
    seed: int | None = None
    image: PictureLike | None = None
    mask: Bool[Tensor, "height width"] | None = None
    target: Float[Tensor, "3 target_height target_width"] | None = None
    call: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id.strip() or not self.category.strip():
            raise InputError(f"A case needs an id and a category, got {self.id!r} and {self.category!r}.")
        if (self.seed is None) == (self.image is None):
            raise InputError(f"Case {self.id!r} needs either a seed to draw its source with or an image, not both.")
        if not self.edits or not all(text.strip() for text in (self.prompt, *self.edits)):
            raise InputError(f"Case {self.id!r} needs a prompt and at least one edited prompt, none of them empty.")
        if self.target is not None and len(self.edits) != 1:
            raise InputError(f"Case {self.id!r} has one target picture for {len(self.edits)} edited prompts.")
        if self.target is not None and self.mask is not None and self.target.shape[1:] != self.mask.shape:
            raise InputError(
                f"Case {self.id!r} has a mask of {tuple(self.mask.shape)} for a target of "
                f"{tuple(self.target.shape[1:])} pixels (height, width)."
            )
