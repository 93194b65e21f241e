"""How much one visitor may ask for, and all together."""

from dataclasses import dataclass, fields

from stableflow.checks import check_number

MINUTE, DAY = 60.0, 86_400.0


@dataclass(frozen=True)
class Limits:
    """Bounds of the app; every one is told to whoever meets it.

    Args:
        upload_bytes, pixels: Of one picture that is sent, as a file and decoded.
        text: Characters of a prompt.
        pictures: Results of one request: prompts, strengths, seeds and editors multiplied.
        steps: Solver steps of a source or an edit.
        waiting, waiting_each: Requests in the queue, of all and of one visitor, the running one included.
        rate: Requests of one visitor in a minute; ten times as many from one address.
        seconds: That one request may run.
        history, history_bytes: Results and bytes that one visitor keeps on disk.
        all_bytes: Bytes on disk of all visitors.
        keep_days: After which an unused visitor's files are deleted; uploads that were not edited go after a day.
        sources, source_bytes: Kept sessions in memory, of one visitor and in bytes of all.
        idle_minutes: After which an unused session leaves the memory.
    """

    upload_bytes: int = 20 * 2**20
    pixels: int = 24_000_000
    text: int = 1000
    pictures: int = 12
    steps: int = 100
    waiting: int = 24
    waiting_each: int = 4
    rate: int = 60
    seconds: float = 600.0
    history: int = 500
    history_bytes: int = 2**30
    all_bytes: int = 20 * 2**30
    keep_days: float = 30.0
    sources: int = 4
    source_bytes: int = 2 * 2**30
    idle_minutes: float = 60.0

    def __post_init__(self) -> None:
        for bound in fields(self):
            check_number(bound.name, getattr(self, bound.name), 0, above=True)
