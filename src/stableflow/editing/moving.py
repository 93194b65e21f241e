"""Things of a picture moved, by the call that users make."""

from typing import Any

from stableflow.editing.base import Editor
from stableflow.editing.methods.move import Moving
from stableflow.editing.moves import Move
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source


def move(editor: Editor, source: Source, *moves: Move, prompt: str | None = None, **settings: Any) -> EditResult:
    """Move, resize, turn, copy or drag things of a source's picture; what they leave behind is drawn anew.

    Args:
        editor: Any editor over the model that made the source.
        source: From `generate`, `invert` or `Source.load`.
        moves: What goes where, in pixels of the source's picture; later ones lie on top.
        prompt: What the holes show, such as "the grass at noon"; the source's own prompt when None.
        settings: Those of `Moving`, and what `Editor.edit` takes: region, exact, callback.

    Raises:
        InputError: Nothing is moved, or a region does not lie in the picture.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> source = editor.generate("a red dog standing on the grass", seed=1)
        >>> move(editor, source, Move("word:dog", dx=16)).images.shape
        torch.Size([1, 3, 64, 64])
    """
    shown = source.conditioning.prompts[0] if prompt is None else prompt
    return Moving(editor.model, moves=moves).edit(source, shown, **settings)
