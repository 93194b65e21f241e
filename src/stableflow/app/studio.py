"""The model at work for one request at a time: sources drawn or taken and kept, edits, and where a word shows."""

import time
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from stableflow.app.card import Card, card_of
from stableflow.app.desk import Job
from stableflow.app.history import Run
from stableflow.app.limits import Limits
from stableflow.app.saved import SavedSources
from stableflow.app.shelf import Shelf, bytes_of
from stableflow.app.visitors import png_bytes
from stableflow.app.why import attention_of, watched
from stableflow.editing import Editor
from stableflow.editing.leaning import judged
from stableflow.editing.methods.brushes import Brushes
from stableflow.editing.run import Run as EditRun
from stableflow.editing.source import Source
from stableflow.editing.stack import Stack, Stroke
from stableflow.flow.integrate import Callback, StepRecord
from stableflow.images import to_pil
from stableflow.models.base import FlowModel
from stableflow.models.model import DiffusersModel
from stableflow.order import Order
from stableflow.region import Region

Made = tuple[Source, bool]  # a source, and whether it was a kept one


@runtime_checkable
class Workshop(Protocol):
    """Where the work of the desk is done: a `Studio` here, or replicas elsewhere."""

    @property
    def card(self) -> Card: ...
    @property
    def loaded(self) -> Mapping[str, Any]: ...
    def source(self, order: Order, job: Job) -> Made: ...
    def session(self, order: Order, job: Job) -> Source: ...
    def edit(self, order: Order, job: Job, stage: str = "editing") -> Run: ...
    def layers(self, order: Order, strokes: Sequence[Stroke], job: Job) -> Run: ...
    def where(self, order: Order, job: Job) -> Region: ...
    def why(self, order: Order, job: Job, point: tuple[int, int]) -> dict[str, Any]: ...
    def sweep(self) -> None: ...


@dataclass(eq=False)
class Studio:
    """One model and the sources kept for its visitors. Only the desk's thread calls what runs the model.

    Args:
        model: Loaded.
        loaded: What it is and how it was loaded, by the names of an order.
        limits: Of the shelf.
        saved: Sources on disk, for those that have left the shelf.
    """

    model: FlowModel
    loaded: Mapping[str, Any]
    limits: Limits
    saved: SavedSources | None = None

    def __post_init__(self) -> None:
        self.shelf = Shelf(self.limits)
        self.card = card_of(self.model)

    def source(self, order: Order, job: Job) -> Made:
        """Return the source of an order: the one kept for this visitor, or a new one, which is kept."""
        editor = order.make_editor(self.model)
        key = job.owner, _made_how(order, editor)
        source = self.shelf.get(key)
        if source is None and self.saved is not None and (source := self.saved.get(key, self.model)) is not None:
            self.shelf.put(key, source)
        if source is not None:
            return source, True
        job.begin("drawing the picture" if order.image is None else "finding the picture's noise")
        preview = order.image is None
        source = order.make_source(editor, self._watching(job, editor.model if preview else None))
        self.shelf.put(key, source)
        if self.saved is not None:
            self.saved.put(key, source)
        return source, False

    def session(self, order: Order, job: Job) -> Source:
        """Return the source of an order with everything that edits need."""
        return self.source(order, job)[0]

    def edit(self, order: Order, job: Job, stage: str = "editing") -> Run:
        """Run an order."""
        started = time.monotonic()
        source, kept = self.source(order, job)
        editor = order.make_editor(self.model)
        job.begin(stage)
        result = order.edit(editor, source, self._watching(job, self.model))
        leanings: list[float] = []
        if order.method != "move" and "auto" not in result.recipe:  # the one changes no words, the other has looked
            job.begin("looking whether it was made")
            leanings = judged(editor, result)
        if bytes_of(source.kept) > self.limits.source_bytes / 4:
            source.kept.clear()
        notes = self.unread([order.prompt or "", *order.to])
        return Run(order, result, kept, time.monotonic() - started, notes, leanings)

    def layers(self, order: Order, strokes: Sequence[Stroke], job: Job) -> Run:
        """Draw layers over an order's source; those below the first change that it has already are not drawn again."""
        started = time.monotonic()
        source, kept = self.source(order, job)
        stack: Stack = source.keep("layers", lambda: Stack(Brushes(self.model), source))
        known = stack.kept(strokes)
        job.begin("drawing the layers")
        result = stack.draw(strokes, callback=self._watching(job, self.model))
        if bytes_of(source.kept) > self.limits.source_bytes / 4:
            source.kept.clear()
        notes = self.unread([order.prompt or "", *(stroke.prompt for stroke in strokes)])
        drawn = [depth >= known for depth in range(len(strokes))]
        return Run(order, result, kept, time.monotonic() - started, notes, drawn=drawn)

    def where(self, order: Order, job: Job) -> Region:
        """Return the region that an order names, found in its source."""
        source, _ = self.source(order, job)
        job.begin("looking for it")
        with torch.no_grad():
            asked = EditRun(
                order.make_editor(self.model), source, order.to or [order.prompt or ""], region=order.region
            )
        assert asked.asked is not None
        return asked.asked

    def why(self, order: Order, job: Job, point: tuple[int, int]) -> dict[str, Any]:
        """Return what a point of a picture attends to, in its source and in an edit."""
        editor = watched(order, self.model)
        source, _ = self.source(order, job)
        return attention_of(editor, source, order, job, point)

    def sweep(self) -> None:
        """Forget sources that were not used for long."""
        self.shelf.sweep()

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Return what of these prompts has no effect with this model, in words."""
        if not isinstance(self.model, DiffusersModel):
            return []
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.model.warn_about(list(dict.fromkeys(texts)))
        return list(dict.fromkeys(str(warning.message) for warning in told))

    def _watching(self, job: Job, shown: FlowModel | None) -> Callback:
        """Tell the job of every step, and show it a preview now and then."""

        def callback(record: StepRecord) -> None:
            job.told(record)
            if shown is not None and 2 < record.index + 1 < record.num_steps and job.wants_preview():
                picture = to_pil(shown.decode_latents(record.estimate()[-1:])[0].clamp(0, 1))
                picture.thumbnail((512, 512))
                job.preview = png_bytes(picture)

        return callback


def _made_how(order: Order, editor: Editor) -> Hashable:
    """All that decides a source and what is recorded with it."""
    drawn = (order.seed, order.height, order.width, repr(order.solver), order.steps, order.guidance)
    if order.image is None:
        return order.prompt, drawn, order.negative, editor.recording()
    how = repr(editor.inverting()) if editor.needs_path else ""
    return order.prompt, order.image.name, drawn, order.inversion, order.nudge, order.negative, how, editor.recording()
