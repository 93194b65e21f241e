"""Something put in, exchanged, or written otherwise: new words get a place, everything else keeps its own."""

from stableflow.editing.tasks.base import TASKS, Task, take_none


@TASKS.register("add")
def add(details: str) -> Task:
    """Put in what the edited prompt names and the source's does not.

    All layers hold everything outside the region. Without one, a draft tells where the model itself would put the new
    words, and the source where lost ones were. Where the edit then stops half way to the draft, it is drawn once more
    in a wider place.
    """
    take_none("add", details)
    return Task("add", settings={"policy": "region", "layers": "all"}, looks_for="rewritten", again=True)


@TASKS.register("replace")
def replace(details: str) -> Task:
    """Exchange one thing for another, or give it another colour, pattern or pose; as `add` does it."""
    take_none("replace", details)
    return Task("replace", settings={"policy": "region", "layers": "all"}, looks_for="rewritten", again=True)


@TASKS.register("text")
def text(details: str) -> Task:
    """Write something else where words are written: a sign, a label; only the place of the lost words is free."""
    take_none("text", details)
    return Task("text", settings={"policy": "region", "layers": "all"}, looks_for="lost")
