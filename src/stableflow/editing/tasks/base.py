"""What a task is: what users ask for, by name, and what the engine is told to do about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stableflow.checks import check_text
from stableflow.errors import InputError
from stableflow.reading import short
from stableflow.registry import Registry


@dataclass(frozen=True)
class Task:
    """An editor, its settings, and the region that is looked for, under the name of what they are good for.

    A task holds data alone: what it does can be said by `region=`, `exact=` and settings as well, which is how recipes
    say it.

    Args:
        name: As users write it, details included.
        editor: A name in `EDITORS`.
        settings: Of the editor; a call's own win.
        looks_for: The region to look for where a call brings none: a description that `REGIONS` reads.
        exact: Whether the given pixels are put back outside the region, where a call does not say.
        again: Whether edits that were not made are drawn once more, in a wider region.
    """

    name: str
    editor: str = "stable-flow"
    settings: Mapping[str, Any] = field(default_factory=dict)
    looks_for: str | None = None
    exact: bool = True
    again: bool = False

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise InputError where a call's settings would say once more what this task's policy says."""
        twice = [name for name in ("layers", "weight", "t_window", "token_mask") if settings.get(name) is not None]
        if "policy" in self.settings and twice and settings.get("policy") is None:
            raise InputError(
                f"The task {self.name!r} says what is held of the source, and so does {twice[0]}. Leave one out; "
                "strength goes with every task."
            )


Maker = Callable[[str], Task]
TASKS: Registry[Maker] = Registry("task", group="stableflow.tasks")
"""From a name to what makes the task of it, given the details behind the colon: "remove", "move:16,0".

The first line of its docstring is what `stableflow tasks` says. Other packages add theirs by entry points.
"""


def as_task(task: str | Task | None) -> Task | None:
    """Return the task itself, or the one that "NAME" or "NAME:DETAILS" describes; None for none.

    Raises:
        UnknownNameError: No task has this name; lists those that there are.
        InputError: The details are wrong.
    """
    if task is None or isinstance(task, Task):
        return task
    if not isinstance(task, str):
        raise InputError(f"task must be a name, 'name:details' or a Task, got {short(task)}.")
    name, _, details = check_text("task", task).partition(":")
    return TASKS[name](details)


SHARED = ("strength", "negative", "guidance_scale", "kv_memory", "preset")
"""Settings that go from one editor to another where a task asks for the other."""


def taken_along(editor: Any, kind: Any) -> dict[str, Any]:
    """Return the settings of an editor that go with its user to another kind, as far as both have them."""
    both = {*editor.setting_names()} & {*kind.setting_names()}
    return {name: getattr(editor, name) for name in SHARED if name in both}


def take_none(name: str, details: str) -> None:
    """Raise InputError where a task that takes no details is given some."""
    if details:
        raise InputError(f"The task {name!r} takes no details, got {short(details)}; give a region with region=.")
