"""Editing methods: one paper, one file in `methods`. `EDITORS` and `TASKS` map public names to them and their uses."""

from stableflow.editing import finding
from stableflow.editing.base import EDITORS, Editor, editor
from stableflow.editing.methods.alike import Alike
from stableflow.editing.methods.brushes import Brushes
from stableflow.editing.methods.cyclic import Cyclic
from stableflow.editing.methods.ddcm import DDCM
from stableflow.editing.methods.direct_inversion import DirectInversion
from stableflow.editing.methods.dnaedit import DNAEdit
from stableflow.editing.methods.dragon import Dragon
from stableflow.editing.methods.edict import EDICT
from stableflow.editing.methods.edit_friendly import EditFriendly
from stableflow.editing.methods.flowalign import FlowAlign
from stableflow.editing.methods.flowedit import FlowEdit
from stableflow.editing.methods.freqedit import FreqEdit
from stableflow.editing.methods.guide_rescale import GuideAndRescale
from stableflow.editing.methods.kv_edit import KVEdit
from stableflow.editing.methods.lomoe import LoMOE
from stableflow.editing.methods.move import Moving
from stableflow.editing.methods.npi import NegativePromptInversion
from stableflow.editing.methods.null_text import NullText
from stableflow.editing.methods.pixelman import PixelMan
from stableflow.editing.methods.polish import Polish
from stableflow.editing.methods.reprompt import Reprompt
from stableflow.editing.methods.rf_inversion import RFInversion
from stableflow.editing.methods.rf_solver_edit import RFSolverEdit
from stableflow.editing.methods.sam_flow import SAMFlow
from stableflow.editing.methods.sdedit import SDEdit
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.methods.steered import Steered
from stableflow.editing.methods.steerflow import SteerFlow
from stableflow.editing.methods.two_models import TwoModels
from stableflow.editing.methods.uniedit import UniEdit
from stableflow.editing.tasks import TASKS, Task

__all__ = [
    "DDCM",
    "EDICT",
    "EDITORS",
    "TASKS",
    "Alike",
    "Brushes",
    "Cyclic",
    "DNAEdit",
    "DirectInversion",
    "Dragon",
    "EditFriendly",
    "Editor",
    "FlowAlign",
    "FlowEdit",
    "FreqEdit",
    "GuideAndRescale",
    "KVEdit",
    "LoMOE",
    "Moving",
    "NegativePromptInversion",
    "NullText",
    "PixelMan",
    "Polish",
    "RFInversion",
    "RFSolverEdit",
    "Reprompt",
    "SAMFlow",
    "SDEdit",
    "StableFlow",
    "SteerFlow",
    "Steered",
    "Task",
    "TwoModels",
    "UniEdit",
    "editor",
    "finding",
]
