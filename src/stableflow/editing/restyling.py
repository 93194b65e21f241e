"""The style of one picture on another, by the call that users make."""

from typing import Any

from stableflow.checks import check_text
from stableflow.editing.base import Editor
from stableflow.editing.fingerprint import ENCODED
from stableflow.editing.methods.restyle import Restyle
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.solvers import make_solver
from stableflow.images import PictureLike


def restyle(
    editor: Editor,
    source: Source,
    reference: Source | PictureLike,
    *,
    showing: str | None = None,
    prompt: str | None = None,
    **settings: Any,
) -> EditResult:
    """Draw a source's picture in the style of a reference picture.

    Args:
        editor: Any editor over the model that made the source.
        source: From `generate`, `invert` or `Source.load`; its layout stays.
        reference: A picture, which is inverted in the source's size and steps, or a source of the same.
        showing: What the reference shows, where it is a picture.
        prompt: What the result shows; the source's own prompt when None. One that names the style as well helps.
        settings: Those of `Restyle`, and what `Editor.edit` takes: region, exact, callback.

    Raises:
        InputError: It is not said what the reference shows.
        FingerprintError: The reference is a source of other steps or size.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> source = editor.generate("a red dog standing on the grass", seed=1)
        >>> reference = editor.generate("a sketch of a cat on the beach", seed=2)
        >>> restyle(editor, source, reference).images.shape
        torch.Size([1, 3, 64, 64])
    """
    restyling = Restyle(editor.model, kv_memory=settings.pop("kv_memory", "auto"))
    if not isinstance(reference, Source):
        if showing is None:
            raise InputError("showing is missing: say what the reference picture shows, as one does of a source.")
        reference = _inverted(restyling, source, reference, check_text("showing", showing))
    shown = source.conditioning.prompts[0] if prompt is None else prompt
    return restyling.edit(source, shown, style=reference, **settings)


def _inverted(editor: Restyle, source: Source, picture: PictureLike, showing: str) -> Source:
    """The reference with the source's flow times, by its solver where it was inverted as well."""
    made = source.fingerprint
    given = made.inversion not in (None, ENCODED)
    how = {"solver": make_solver(made.solver), "inversion": made.inversion} if given else {}
    steps = {} if made.inversion == ENCODED else {"num_steps": made.num_steps}
    return editor.invert(picture, showing, **steps, **how, nudge_scale=1.0, height=made.height, width=made.width)
