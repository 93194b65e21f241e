"""The door's side: a workshop whose work is done by replicas, asked again where a replica was lost."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayError  # pyright: ignore[reportMissingImports]
from ray.serve.exceptions import BackPressureError  # pyright: ignore[reportMissingImports]

from stableflow.app.card import Card
from stableflow.app.desk import Busy, Job
from stableflow.app.history import Run
from stableflow.app.studio import Made
from stableflow.editing.source import Source
from stableflow.editing.stack import Stroke
from stableflow.errors import InterventionError
from stableflow.order import Order
from stableflow.region import Region
from stableflow.serving.wire import Asked, What, asked_of

LOOK_EVERY = 0.25  # seconds between two looks whether a request was cancelled
TIMES = 5  # that a request is asked again where replicas are lost under it
PAUSE = 1.0  # seconds before it is
COME_AGAIN = 5.0  # seconds, where the replicas' queue is full


class FarStudio:
    """One model at work in replicas.

    Args:
        handle: Of the replicas' deployment.
        name: The model's.
        loaded: What it is and how it is loaded, by the names of an order.
    """

    def __init__(self, handle: Any, name: str, loaded: Mapping[str, Any]):
        self._handle, self._name, self.loaded = handle.options(multiplexed_model_id=name), name, loaded
        self.card: Card = self._handle.card.remote(name).result()

    def source(self, order: Order, job: Job) -> Made:
        """Return a source without what its edits need, and whether it was a kept one."""
        return self._done("source", order, job, "drawing the picture")

    def session(self, order: Order, job: Job) -> Source:
        """Return a source with everything that edits need."""
        return self._done("session", order, job, "fetching the session")

    def edit(self, order: Order, job: Job, stage: str = "editing") -> Run:
        """Run an order."""
        return replace(self._done("edit", order, job, stage), order=order)

    def layers(self, order: Order, strokes: Sequence[Stroke], job: Job) -> Run:
        """Draw layers over an order's source."""
        return replace(self._done("layers", order, job, "drawing the layers", strokes=strokes), order=order)

    def where(self, order: Order, job: Job) -> Region:
        """Return the region that an order names, found in its source."""
        return self._done("where", order, job, "looking for it")

    def why(self, order: Order, job: Job, point: tuple[int, int]) -> dict[str, Any]:
        """Return what a point of a picture attends to, in its source and in an edit."""
        return self._done("why", order, job, "watching the attention", point)

    def sweep(self) -> None:
        """Nothing is kept here; replicas keep to their own limits."""

    def _done(
        self, what: What, order: Order, job: Job, stage: str, point: Sequence[int] | None = None,
        strokes: Sequence[Stroke] = (),
    ) -> Any:  # fmt: skip
        asked = asked_of(what, order, job.owner, None if point is None else (point[0], point[1]), strokes)
        job.begin(stage)
        for time_left in reversed(range(TIMES)):
            try:
                return self._answer(asked, job)
            except RayActorError as lost:  # the work has no effect but its answer, so it can be done twice
                if not time_left:
                    raise InterventionError(
                        f"{TIMES} replicas were lost under this request: {str(lost).splitlines()[0][:200]} Is their "
                        "memory too small for it?"
                    ) from lost
                time.sleep(PAUSE)
        raise AssertionError

    def _answer(self, asked: Asked, job: Job) -> Any:
        response = self._handle.options(session_id=asked.session).do.remote(asked)
        try:
            while True:
                try:
                    return response.result(timeout_s=LOOK_EVERY)
                except TimeoutError:
                    job.check()
        except BackPressureError as full:
            raise Busy("All replicas are busy. Please try again in a moment.", COME_AGAIN) from full
        except RayActorError:
            raise
        except RayError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, Exception) else error) from None
        except BaseException:
            response.cancel()
            raise
