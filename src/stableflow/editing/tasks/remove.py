"""Taking something away: the edited prompt loses words, and their place is drawn again without them."""

from stableflow.editing.tasks.base import TASKS, Task, take_none


@TASKS.register("remove")
def remove(details: str) -> Task:
    """Take away what the edited prompt no longer names.

    All layers hold everything outside the region, and nothing is held inside: there the object's own values would carry
    it back, which is why injection in the vital layers removes nothing. Without a region, the place of the words that
    the edited prompt lost is looked for.
    """
    take_none("remove", details)
    return Task("remove", settings={"policy": "region"}, looks_for="lost")
