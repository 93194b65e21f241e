"""What users ask for, one task a file: a choice of editor, region and settings. `TASKS` maps names to them."""

from stableflow.editing.tasks import background, remove, rewrite, style
from stableflow.editing.tasks.base import TASKS, Task, as_task

__all__ = ["TASKS", "Task", "as_task", "background", "remove", "rewrite", "style"]
