"""Tasks against their rivals, by what is true of synthetic scenes: `stableflow bench tasks --task NAME`.

A row is one file here that registers a `Row` (`rows.py`): how its scenes change (`scenes.truths`), which ways are
compared (`ways.ours`, `ways.rivals`), and which figures are shown. What a way hands to `edit` is data: `Setting.call`
for all cases, `Case.call` with `Setting.asks` for what differs from case to case, such as `{"task": "move:16,0"}`. A
judge may be `TaskJudge` or one of the row's own; `metrics.figure` finds where the figure is. Then one import below.
"""

from stableflow.benchmarks.tasks import background, moving, pose, removal, rewriting, style, turns
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row

__all__ = ["ROWS", "Cases", "Row", "background", "moving", "pose", "removal", "rewriting", "style", "turns"]
