"""What an editor is, and the names of the known ones."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.flow.integrate import Callback
from stableflow.images import PictureLike
from stableflow.models.base import Conditioning, FlowModel
from stableflow.registry import Registry


@runtime_checkable
class Editor(Protocol):
    """An editing method over a model: made from the model and the method's own settings, all with defaults."""

    @property
    def model(self) -> FlowModel: ...

    def generate(
        self,
        prompt: str | Conditioning,
        *,
        seed: int | None = None,
        num_steps: int = 15,
        height: int | None = None,
        width: int | None = None,
    ) -> Source:
        """Draw a source picture; one seed draws one picture, whatever the editor."""
        ...

    def invert(
        self,
        image: PictureLike,
        prompt: str | Conditioning,
        *,
        height: int | None = None,
        width: int | None = None,
    ) -> Source:
        """Take a real picture as the source, with whatever this method must know of it before editing."""
        ...

    def edit(
        self, source: Source, prompts: str | Sequence[str] | Conditioning, *, callback: Callback | None = None
    ) -> EditResult:
        """Draw the edits of a source; the same call gives the same pictures."""
        ...


EDITORS: Registry[Callable[..., Editor]] = Registry("editor")
"""From public names to what makes an editor: `EDITORS["sdedit"](model, strength=0.6)`."""


def describe_editor(editor: Editor) -> dict[str, Any]:
    """Return the name and settings of an editor that is a registered dataclass, as JSON values."""
    name = next((name for name, known in EDITORS.items() if known is type(editor)), type(editor).__name__)
    assert dataclasses.is_dataclass(editor), f"{name} keeps its settings elsewhere"
    settings = {field.name: getattr(editor, field.name) for field in dataclasses.fields(editor)}
    return {"name": name, **{key: value for key, value in settings.items() if key != "model"}}
