"""One queue before the models: requests wait in turn, tell how far they are, and stop within a step."""

import gc
import logging
import secrets
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from stableflow.app.limits import Limits
from stableflow.app.metrics import Histogram
from stableflow.errors import StableFlowError
from stableflow.flow.integrate import StepRecord

_LOG = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "failed", "cancelled"]
REMEMBERED = 256  # finished requests whose outcome can still be asked for
PREVIEW_EVERY = 0.4  # seconds, at the least, between two previews
FULL = (
    "The memory is full. In this order: fewer changes at once; a smaller picture; the preset 'fast', which keeps less "
    "of the source. Whoever runs the app can start it with --offload model or --quantise int8."
)


class Busy(StableFlowError):
    """The queue is full, or somebody asks too often; `retry_after` says in how many seconds to come again."""

    def __init__(self, message: str, retry_after: float):
        super().__init__(message)
        self.retry_after = max(1, round(retry_after))


class Stopped(Exception):
    """Raised inside a run that was cancelled."""


class TookTooLong(StableFlowError):
    """A request ran longer than the app allows."""


@dataclass(eq=False)
class Job:
    """One request, from its place in the queue to its outcome.

    Args:
        owner: The visitor; nobody else can see it.
        work: Does it; is given the job, to tell of progress.
        id: Cannot be guessed.
        version: Grows with every change, so that a page can wait for the next.
    """

    owner: str
    work: Callable[["Job"], Any]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    state: State = "waiting"
    stage: str = "waiting"
    step: int = 0
    steps: int = 0
    preview: bytes | None = None
    result: Any = None
    error: str | None = None
    retry_after: int | None = None
    version: int = 0
    deadline: float = float("inf")
    cancelled: bool = False
    previewed: float = 0.0
    arrived: float = field(default_factory=time.monotonic)

    def begin(self, stage: str) -> None:
        """Name what is done next."""
        self.stage, self.step, self.steps = stage, 0, 0
        self.changed()

    def told(self, record: StepRecord) -> None:
        """Take note of a finished step, and end the run here if it was cancelled or runs too long."""
        self.step, self.steps = record.index + 1, record.num_steps
        self.changed()
        self.check()

    def check(self) -> None:
        """Raise Stopped or TookTooLong where the run is to end."""
        if self.cancelled:
            raise Stopped
        if time.monotonic() > self.deadline:
            raise TookTooLong(
                "This took longer than the app allows. Ask for fewer changes at once, a smaller picture, or the "
                "preset 'fast'."
            )

    def wants_preview(self) -> bool:
        """Whether it is time for the next preview."""
        now = time.monotonic()
        if now - self.previewed < PREVIEW_EVERY:
            return False
        self.previewed = now
        return True

    def changed(self) -> None:
        self.version += 1

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Desk:
    """Runs jobs in threads of its own: one at a time where there is one model.

    Args:
        limits: How many may wait, of all and of one visitor, and how long one may run.
        prepare: Runs first in that thread: loads the model. What it raises goes to `failed`.
        failed: Told when `prepare` fails.
        plain: What is left out of messages before visitors see them.
        hands: Jobs that run at once.
    """

    def __init__(
        self,
        limits: Limits,
        prepare: Callable[[], None],
        failed: Callable[[BaseException], None],
        plain: Callable[[str], str] = str,
        *,
        hands: int = 1,
    ):
        self.limits, self.hands = limits, hands
        self._prepare, self._failed, self._plain = prepare, failed, plain
        self._queue: deque[Job] = deque()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._running: set[Job] = set()
        self.outcomes: Counter[str] = Counter()  # jobs by how they ended, and "refused"
        self.took = Histogram()
        self._wake = threading.Condition()
        self._closed = False
        self._seconds = 2.0  # what one job takes, smoothed
        first, *others = (self._start, *[self._serve] * (hands - 1))
        self._first = threading.Thread(target=first, name="stableflow-desk", daemon=True)
        self._others = [threading.Thread(target=hand, name="stableflow-hand", daemon=True) for hand in others]

    def open(self) -> None:
        """Start the first thread; when the model is there, it starts the others."""
        self._first.start()

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._wake:
            self._closed = True
            for job in [*self._queue, *self._running]:
                job.cancelled = True
            self._wake.notify_all()
        for thread in (self._first, *self._others):
            if thread.is_alive():
                thread.join(30)

    def submit(self, owner: str, work: Callable[[Job], Any]) -> Job:
        """Put a job at the end of the queue.

        Raises:
            Busy: The queue is full, or this visitor has as many in it as one may have.
        """
        with self._wake:
            waiting = len(self._queue) + len(self._running)
            own = sum(job.owner == owner for job in [*self._queue, *self._running])
            if max(own - self.limits.waiting_each, waiting - self.limits.waiting) >= 0:
                self.outcomes["refused"] += 1
            if own >= self.limits.waiting_each:
                raise Busy(f"You have {own} requests in the queue, as many as one visitor may have.", self._seconds)
            if waiting >= self.limits.waiting:
                raise Busy(
                    f"{waiting} requests are in the queue, as many as it takes. Please try again in a moment.",
                    self._seconds * waiting / 2 / self.hands,
                )
            job = Job(owner, work)
            self._queue.append(job)
            self._jobs[job.id] = job
            self._forget()
            self._wake.notify_all()
        return job

    def find(self, owner: str, name: str) -> Job | None:
        """Return a visitor's own job; another's is not found."""
        job = self._jobs.get(name)
        return job if job is not None and job.owner == owner else None

    def cancel(self, job: Job) -> None:
        """End a job: at once if it waits, after its present step if it runs."""
        with self._wake:
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)
                job.state, job.stage = "cancelled", "cancelled"
                job.changed()

    def ahead(self, job: Job) -> int:
        """Return how many jobs come before this one."""
        with self._wake:
            if job not in self._queue:
                return 0
            return list(self._queue).index(job) + len(self._running)

    def wait_for(self, job: Job) -> float:
        """Return about how many seconds a job has to wait."""
        return round(self._seconds * self.ahead(job) / self.hands, 1)

    def numbers(self) -> dict[str, int]:
        """Return how many jobs wait and run now."""
        with self._wake:
            return {"waiting": len(self._queue), "running": len(self._running)}

    def _forget(self) -> None:
        over = [name for name, job in self._jobs.items() if job.over]
        for name in over[: max(0, len(self._jobs) - REMEMBERED)]:
            del self._jobs[name]

    def _start(self) -> None:
        try:
            self._prepare()
        except BaseException as error:
            self._failed(error)
            return
        for thread in self._others:
            thread.start()
        self._serve()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            with self._wake:
                self._running.discard(job)

    def _next(self) -> Job | None:
        with self._wake:
            while not self._queue and not self._closed:
                self._wake.wait()
            if self._closed:
                return None
            job = self._queue.popleft()
            self._running.add(job)
            return job

    def _run(self, job: Job) -> None:
        started = time.monotonic()
        job.state, job.deadline = "running", started + self.limits.seconds
        job.changed()
        try:
            job.check()
            job.result = job.work(job)
            job.state = "done"
        except Stopped:
            job.state = "cancelled"
        except StableFlowError as error:
            job.error, job.state = self._plain(str(error)), "failed"
            job.retry_after = error.retry_after if isinstance(error, Busy) else None
        except (torch.OutOfMemoryError, MemoryError):
            job.error, job.state = FULL, "failed"
        except Exception as error:
            _LOG.exception("A request failed")
            job.error = f"Something went wrong inside the app ({type(error).__name__}). Please report it."
            job.state = "failed"
        finally:
            took = time.monotonic() - started
            with self._wake:
                self._seconds = 0.7 * self._seconds + 0.3 * took
                self.took.observe(time.monotonic() - job.arrived)
                self.outcomes[job.state] += 1
            job.stage, job.preview, job.work = job.state, None, _nothing
            if job.state != "done":
                _free()
            job.changed()


def _nothing(job: Job) -> None:
    return None


def _free() -> None:
    """Give memory of a broken-off run back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
