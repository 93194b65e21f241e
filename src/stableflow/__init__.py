"""Training-free image editing with diffusion transformers: vital layers, exactly and measurably.

The names below are the public API; each is imported when it is first used, since torch and diffusers take seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

from stableflow.quiet import quietly

if TYPE_CHECKING:
    from stableflow.editing.attention import AttentionResult, attention
    from stableflow.editing.features import Features, features
    from stableflow.editing.methods.stable_flow import StableFlow
    from stableflow.editing.moves import Move
    from stableflow.editing.moving import move
    from stableflow.editing.restyling import restyle
    from stableflow.editing.result import EditResult
    from stableflow.editing.source import Source
    from stableflow.editing.turns import Session
    from stableflow.errors import StableFlowError
    from stableflow.flow.schedule import Schedule
    from stableflow.flow.solvers import SOLVERS, Euler, FireFlow, FixedPoint, Heun, Midpoint
    from stableflow.images import load_image, to_pil
    from stableflow.integrations.own_loop import attach, inject
    from stableflow.integrations.pipeline import StableFlowPipeline
    from stableflow.interventions import (
        Ablate,
        Bypass,
        Capture,
        CaptureAttention,
        InjectKV,
        KVStore,
        Patch,
        RecordKV,
        Rewrite,
        ShareKV,
    )
    from stableflow.models.base import Conditioning, FlowModel, Layer, TokenLayout
    from stableflow.models.families import wrap
    from stableflow.models.load import load
    from stableflow.models.tiles import InTiles
    from stableflow.region import Region
    from stableflow.vital.measure import Vitality, measure_vitality

_HOMES = {
    "stableflow.editing.attention": ["AttentionResult", "attention"],
    "stableflow.editing.features": ["Features", "features"],
    "stableflow.editing.moves": ["Move"],
    "stableflow.editing.moving": ["move"],
    "stableflow.editing.restyling": ["restyle"],
    "stableflow.editing.result": ["EditResult"],
    "stableflow.editing.source": ["Source"],
    "stableflow.editing.turns": ["Session"],
    "stableflow.editing.methods.stable_flow": ["StableFlow"],
    "stableflow.errors": ["StableFlowError"],
    "stableflow.flow.schedule": ["Schedule"],
    "stableflow.flow.solvers": ["SOLVERS", "Euler", "FireFlow", "FixedPoint", "Heun", "Midpoint"],
    "stableflow.images": ["load_image", "to_pil"],
    "stableflow.integrations.own_loop": ["attach", "inject"],
    "stableflow.integrations.pipeline": ["StableFlowPipeline"],
    "stableflow.interventions": [
        "Ablate",
        "Bypass",
        "Capture",
        "CaptureAttention",
        "InjectKV",
        "KVStore",
        "Patch",
        "RecordKV",
        "Rewrite",
        "ShareKV",
    ],
    "stableflow.models.base": ["Conditioning", "FlowModel", "Layer", "TokenLayout"],
    "stableflow.models.families": ["wrap"],
    "stableflow.models.load": ["load"],
    "stableflow.models.tiles": ["InTiles"],
    "stableflow.region": ["Region"],
    "stableflow.vital.measure": ["Vitality", "measure_vitality"],
}

__all__ = [
    "SOLVERS",
    "Ablate",
    "AttentionResult",
    "Bypass",
    "Capture",
    "CaptureAttention",
    "Conditioning",
    "EditResult",
    "Euler",
    "Features",
    "FireFlow",
    "FixedPoint",
    "FlowModel",
    "Heun",
    "InTiles",
    "InjectKV",
    "KVStore",
    "Layer",
    "Midpoint",
    "Move",
    "Patch",
    "RecordKV",
    "Region",
    "Rewrite",
    "Schedule",
    "Session",
    "ShareKV",
    "Source",
    "StableFlow",
    "StableFlowError",
    "StableFlowPipeline",
    "TokenLayout",
    "Vitality",
    "attach",
    "attention",
    "features",
    "inject",
    "load",
    "load_image",
    "measure_vitality",
    "move",
    "restyle",
    "to_pil",
    "wrap",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            with quietly():
                return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'stableflow' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
