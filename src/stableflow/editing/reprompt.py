"""Plain re-prompting: the edited prompt from the source's own noise, and nothing else."""

from stableflow.editing.base import EDITORS
from stableflow.editing.stable_flow import StableFlow
from stableflow.models.base import FlowModel


@EDITORS.register("reprompt")
def reprompt(model: FlowModel) -> StableFlow:
    """Return Stable Flow without layers to inject in: what every method must beat."""
    return StableFlow(model, layers=())
