"""Editing methods: one paper, one file. `EDITORS` maps the public names to them."""

from stableflow.editing.base import EDITORS, Editor
from stableflow.editing.flowedit import FlowEdit
from stableflow.editing.reprompt import reprompt
from stableflow.editing.rf_inversion import RFInversion
from stableflow.editing.rf_solver_edit import RFSolverEdit
from stableflow.editing.sdedit import SDEdit
from stableflow.editing.stable_flow import StableFlow

__all__ = ["EDITORS", "Editor", "FlowEdit", "RFInversion", "RFSolverEdit", "SDEdit", "StableFlow", "reprompt"]
