"""Editing methods: one paper, one file in `methods`. `EDITORS` maps the public names to them."""

from stableflow.editing.base import EDITORS, Editor, editor
from stableflow.editing.methods.ddcm import DDCM
from stableflow.editing.methods.edit_friendly import EditFriendly
from stableflow.editing.methods.flowedit import FlowEdit
from stableflow.editing.methods.reprompt import Reprompt
from stableflow.editing.methods.rf_inversion import RFInversion
from stableflow.editing.methods.rf_solver_edit import RFSolverEdit
from stableflow.editing.methods.sdedit import SDEdit
from stableflow.editing.methods.stable_flow import StableFlow

__all__ = [
    "DDCM",
    "EDITORS",
    "EditFriendly",
    "Editor",
    "FlowEdit",
    "RFInversion",
    "RFSolverEdit",
    "Reprompt",
    "SDEdit",
    "StableFlow",
    "editor",
]
