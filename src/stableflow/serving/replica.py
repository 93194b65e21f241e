"""One replica: a model at a time, the sessions it has made, and edits of one session drawn in one batch."""

import asyncio
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import serve  # pyright: ignore[reportMissingImports]

from stableflow.app.card import Card
from stableflow.app.desk import Job
from stableflow.app.limits import Limits
from stableflow.app.saved import SavedSources
from stableflow.app.studio import Studio
from stableflow.models.base import FlowModel
from stableflow.serving.wire import Asked, light, order_of, split

Opening = Callable[[], FlowModel]


@dataclass(eq=False)
class _Waiting:
    """A request in the replica, until it is answered."""

    asked: Asked
    answer: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    left: bool = False


class Replica:
    """Does the work of a door's desk, one batch after another.

    Args:
        models: What opens each model, and how it is loaded by the names of an order; the first is loaded at once.
        limits: Of the sessions kept in memory.
        batch: Requests of one session that may be drawn together.
        saved: Sessions on disk.
    """

    async def __init__(
        self,
        models: Mapping[str, tuple[Opening, Mapping[str, Any]]],
        limits: Limits,
        batch: int,
        saved: SavedSources | None,
    ):
        self._models, self._limits, self._batch, self._saved = models, limits, batch, saved
        self._waiting: list[_Waiting] = []
        self._drawn: list[_Waiting] = []
        self._job = Job("", lambda job: None)
        self._came = asyncio.Event()
        await self._studio(next(iter(models)))
        self._runner = asyncio.get_running_loop().create_task(self._run())

    async def do(self, asked: Asked) -> Any:
        """Do one piece of work: a `Run` for an edit, else a source, a region or what a point attends to."""
        one = _Waiting(asked)
        self._waiting.append(one)
        self._came.set()
        try:
            return await one.answer
        except asyncio.CancelledError:
            one.left = True
            if self._drawn and all(drawn.left for drawn in self._drawn):
                self._job.cancelled = True
            raise

    async def card(self, model: str) -> Card:
        """Return what pages ask of a model."""
        return (await self._studio(model)).card

    async def _studio(self, model: str) -> Studio:
        return await self._held(model)  # pyright: ignore[reportCallIssue]: Serve's decorator hides the signature

    @serve.multiplexed(max_num_models_per_replica=1)
    async def _held(self, model: str) -> Studio:
        opening, loaded = self._models[model]
        gc.collect()
        return Studio(await asyncio.to_thread(opening), loaded, self._limits, self._saved)

    async def _run(self) -> None:
        while True:
            await self._came.wait()
            while batch := self._taken():
                await self._answer(batch)
            self._came.clear()

    def _taken(self) -> list[_Waiting]:
        """Take the request that came first, and those that can share its batch."""
        self._waiting = [one for one in self._waiting if not one.left]
        if not self._waiting:
            return []
        first = self._waiting[0].asked.together
        alike = [one for one in self._waiting if first is not None and one.asked.together == first]
        batch = alike[: self._batch] or self._waiting[:1]
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        asked = [one.asked for one in batch]
        self._drawn, self._job = batch, Job(asked[0].owner, lambda job: None, previewed=float("inf"))
        try:
            studio = await self._studio(asked[0].model)
            answers = await asyncio.to_thread(performed, studio, asked, self._job)
            studio.sweep()
        except Exception as error:
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        finally:
            self._drawn = []
        for one, answer in zip(batch, answers):
            if not one.answer.done():
                one.answer.set_result(answer)


def performed(studio: Studio, asked: Sequence[Asked], job: Job) -> list[Any]:
    """Return the answers to requests that are one piece of work, or edits that share a batch.

    Args:
        job: Told of every step; ends the run where it was cancelled.
    """
    with tempfile.TemporaryDirectory() as folder:
        order, first = order_of(asked[0], Path(folder)), asked[0]
        if first.what == "edit":
            texts = [list(one.values["to"]) for one in asked]
            order = order.model_copy(update={"to": [text for own in texts for text in own]})
            return split(studio.edit(order, job, "editing"), [len(own) for own in texts])
        if first.what == "layers":
            return split(studio.layers(order, first.strokes, job), [1])
        if first.what == "source":
            source, kept = studio.source(order, job)
            return [(light(source), kept)]
        if first.what == "session":
            return [studio.session(order, job).to("cpu")]
        if first.what == "where":
            return [studio.where(order, job)]
        assert first.point is not None
        return [studio.why(order, job, first.point)]
