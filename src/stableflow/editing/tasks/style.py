"""Another style: what a style changes in every pixel is in the values, so they are let go."""

from stableflow.editing.tasks.base import TASKS, Task, take_none


@TASKS.register("style")
def style(details: str) -> Task:
    """Draw the same picture in another style.

    The keys of all layers are held and no values: what looks at what stays nearly as it was, what is seen there does
    not. Values of the source, even in few layers or steps, stop some styles; strength below 1 brings them back.
    """
    take_none("style", details)
    return Task("style", settings={"policy": "look", "layers": "all"})
