"""Training-free image editing with diffusion transformers: vital layers, exactly and measurably."""

from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.stable_flow import StableFlow
from stableflow.errors import StableFlowError
from stableflow.flow.solvers import SOLVERS, Euler, FireFlow, FixedPoint, Heun, Midpoint
from stableflow.images import load_image, to_pil
from stableflow.interventions import Bypass, InjectKV, RecordKV, ShareKV
from stableflow.models.base import Conditioning, FlowModel, Layer, TokenLayout
from stableflow.models.families import wrap
from stableflow.models.load import load

__all__ = [
    "SOLVERS",
    "Bypass",
    "Conditioning",
    "EditResult",
    "Euler",
    "FireFlow",
    "FixedPoint",
    "FlowModel",
    "Heun",
    "InjectKV",
    "Layer",
    "Midpoint",
    "RecordKV",
    "ShareKV",
    "Source",
    "StableFlow",
    "StableFlowError",
    "TokenLayout",
    "load",
    "load_image",
    "to_pil",
    "wrap",
]
