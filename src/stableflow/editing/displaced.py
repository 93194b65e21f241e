"""One thing that an edit moves by pixels: where it may act, and what is checked of it."""

from collections.abc import Sequence
from typing import Any

from stableflow.checks import check_count
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.region import Region


def check_by(by: Any) -> None:
    """Raise InputError unless it is two whole numbers of pixels."""
    if not isinstance(by, list | tuple) or len(by) != 2:
        raise InputError(f"by takes two whole numbers of pixels, to the right and down, got {by!r}.")
    for side in by:
        check_count("by", side, -65_536, 65_536)


def displaced(run: Run, region: Region | None, by: Sequence[int], name: str) -> Region | None:
    """Return where an edit acts that moves a region's content: where it stood and where it goes.

    The thing itself is kept with the run: see `thing_of`.

    Raises:
        InputError: There is no region to move, or the edits have different ones.
    """
    if not any(by):
        return region
    if region is None:
        raise InputError(f"{name} moves a region by {by}; give the thing as region=.")
    thing = run.once("thing", lambda: region.row(0))
    if any(region.row(row) != thing for row in range(len(region))):
        raise InputError(f"{name} moves one thing a call; give one region for all edits.")
    both = thing | thing.moved(*by)
    return Region(both.amount.expand(len(region), -1, -1))


def thing_of(run: Run) -> Region:
    """Return the thing that moves, as `displaced` was given it."""
    return run.once("thing", lambda: Region.nowhere(run.model.default_size))
