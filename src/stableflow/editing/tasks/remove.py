"""Taking something away: the edited prompt loses words, and their place is drawn again without them."""

from stableflow.editing.tasks.base import TASKS, Task, take_none


@TASKS.register("remove")
def remove(details: str) -> Task:
    """Take away what the edited prompt no longer names.

    All layers hold everything outside the region, and nothing is held inside: there the object's own values would carry
    it back, which is why injection in the vital layers removes nothing. There the edit is also led away from what the
    source's prompt says, since the noise remembers the thing as well. Without a region, the place of the words that
    the edited prompt lost is looked for.
    """
    take_none("remove", details)
    return Task("remove", settings={"policy": "region", "layers": "all", "away": 0.5}, looks_for="lost")
