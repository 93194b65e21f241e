"""What stays as long as the app runs: the queue, the visitors, and the model once it is loaded."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stableflow.app.credentials import Credentials
from stableflow.app.desk import Busy, Desk, Job
from stableflow.app.filters import ContentFilter
from stableflow.app.history import clear_unfinished
from stableflow.app.limits import Limits
from stableflow.app.studio import Workshop
from stableflow.app.visitors import Visitor, Visitors
from stableflow.app.work import Office, Work
from stableflow.errors import unknown_name
from stableflow.files import check_writable

SWEEP_EVERY = 300.0  # seconds
LOADING = 90.0  # seconds that a request waits for the model
_LOG = logging.getLogger(__name__)


class House:
    """One queue, many visitors, and where the work is done.

    Args:
        opening: Returns where work is done, by the model's name, the usual one first; runs in the desk's thread, so
            that pages are there before a model is loaded.
        loaded: What the usual model is and how it is loaded, by the names of an order.
        folder: Where visitors' files are.
        limits: Of everything.
        content: Refuses words and pictures.
        credentials: Signs pictures.
        failed: Told when the model cannot be loaded.
        hands: Requests that are worked on at once.
    """

    def __init__(
        self,
        opening: Callable[[], Mapping[str, Workshop]],
        loaded: Mapping[str, Any],
        folder: Path,
        *,
        limits: Limits,
        content: ContentFilter | None = None,
        credentials: Credentials | None = None,
        failed: Callable[[BaseException], None] = lambda error: None,
        hands: int = 1,
    ):
        self.limits, self.loaded, self.content, self.credentials = limits, dict(loaded), content, credentials
        self.folder = folder.resolve()
        self.visitors = Visitors(self.folder, limits)
        self.studios: Mapping[str, Workshop] = {}
        self._opening = opening
        self._closing = threading.Event()
        self.desk = Desk(limits, self._prepare, failed, self.visitors.without_paths, hands=hands)

    def open(self) -> None:
        """Make the folder, clear what was left half-written, and start loading the model."""
        check_writable(self.folder)
        clear_unfinished(self.folder)
        self.desk.open()
        threading.Thread(target=self._sweep, name="stableflow-sweep", daemon=True).start()

    def close(self) -> None:
        """Cancel what runs."""
        self._closing.set()
        self.desk.close()

    @property
    def studio(self) -> Workshop | None:
        """Where the usual model works; None while it is being loaded."""
        return next(iter(self.studios.values()), None)

    async def office(self, model: str | None = None) -> Office:
        """Return what work needs, once the model is there.

        Args:
            model: Which, where there are several.

        Raises:
            Busy: It is still being loaded.
            UnknownNameError: There are several, and none of this name.
        """
        for _ in range(round(LOADING / 0.1)):
            if self.studio is not None:
                return Office(self._studio(model), self.visitors, self.limits, self.content, self.credentials)
            await asyncio.sleep(0.1)
        raise Busy("The model is still being loaded. Please try again in a moment.", 10)

    def submit(self, visitor: Visitor, work: Work) -> Job:
        """Put a visitor's work into the queue."""
        return self.desk.submit(visitor.key, work)

    def side(self) -> int:
        """Return the longest side that may be drawn, in pixels: twice the model's own."""
        return 0 if self.studio is None else 2 * max(self.studio.card.size)

    def _studio(self, model: str | None) -> Workshop:
        if model is not None and len(self.studios) > 1 and model not in self.studios:
            raise unknown_name("model", model, self.studios)
        return self.studios.get(model or "") or next(iter(self.studios.values()))

    def _prepare(self) -> None:
        self.studios = self._opening()

    def _sweep(self) -> None:
        while not self._closing.wait(SWEEP_EVERY):
            try:
                self.visitors.sweep()
                for studio in self.studios.values():
                    studio.sweep()
            except OSError as error:
                _LOG.warning("Sweeping old files failed: %s", error)
