"""Reference pictures of trained editors, as they are given: a file, a picture, or a list of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from stableflow.editing.fingerprint import digest
from stableflow.errors import InputError
from stableflow.images import PictureLike, prepare
from stableflow.models.base import Conditioning, FlowModel
from stableflow.models.guidance import NEGATIVE
from stableflow.models.reference import POSITIONS, TOKENS

References = PictureLike | Sequence[PictureLike]


@runtime_checkable
class TakesReferences(Protocol):
    """A model whose passes may read reference pictures."""

    def with_reference(self, conditioning: Conditioning, pictures: Sequence[Tensor]) -> Conditioning: ...


def referring(
    model: FlowModel,
    conditioning: Conditioning,
    references: References | None,
    source: Conditioning | None = None,
) -> tuple[Conditioning, tuple[str, ...]]:
    """Return a conditioning with reference pictures, and the pictures' digests; with none given, with the source's.

    Pictures are reduced to the model's usual size where they are larger, and padded to whole tokens.

    Raises:
        ImageError: One cannot be read.
        InputError: The model takes none, or not so many.
    """
    if references is None:
        return (conditioning if source is None else inherited(conditioning, source)), ()
    if not isinstance(model, TakesReferences):
        raise InputError(f"{model.name} takes no reference picture. Edit without reference=.")
    given: Sequence[Any] = [references] if _is_one(references) else references  # pyright: ignore[reportAssignmentType]
    most = max(model.default_size)
    pictures = [prepare(one, multiple=model.pixel_multiple, max_side=most).pixels for one in given]
    return model.with_reference(conditioning, pictures), tuple(digest(picture) for picture in pictures)


def inherited(conditioning: Conditioning, source: Conditioning) -> Conditioning:
    """Return the edits' conditioning with the reference pictures of their source, if it has some."""
    names = [name for name in source.tensors if name.removeprefix(NEGATIVE) in (TOKENS, POSITIONS)]
    if not names or TOKENS in conditioning.tensors:
        return conditioning
    own: dict[str, Tensor] = {name: source.tensors[name].expand(len(conditioning), -1, -1) for name in names}
    return Conditioning(conditioning.prompts, {**conditioning.tensors, **own})


def _is_one(references: Any) -> bool:
    return isinstance(references, str | Path) or not isinstance(references, list | tuple)
