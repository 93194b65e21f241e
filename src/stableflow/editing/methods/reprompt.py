"""Plain re-prompting: the edited prompt from the source's own noise, and nothing else."""

from dataclasses import dataclass

from stableflow.editing.base import editor
from stableflow.editing.on_path import OnPath
from stableflow.editing.run import Run
from stableflow.flow.time_grid import TimeGrid


@editor("reprompt", good_for="the baseline that every method must beat")
@dataclass(frozen=True)
class Reprompt(OnPath):
    """Move the edits as the source moved, under their own prompts.

    Args:
        strength: How much of the path is walked again: edits start at the source's state at the flow time nearest to
            it, instead of at the noise.
    """

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid if self.strength is None else run.source.grid.since(self.strength)
