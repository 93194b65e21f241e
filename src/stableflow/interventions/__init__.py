"""Reading and changing what chosen layers do. Interventions know layers and tokens and no model family."""

from stableflow.interventions.bypass import Bypass
from stableflow.interventions.capture import CaptureAttention
from stableflow.interventions.extend import ExtendKV
from stableflow.interventions.inject import InjectKV
from stableflow.interventions.leave_out import LeaveOut
from stableflow.interventions.record import RecordKV
from stableflow.interventions.reduce import AttentionMean
from stableflow.interventions.reuse import ReuseResidual
from stableflow.interventions.rewrite import Ablate, Capture, Patch, Rewrite
from stableflow.interventions.share import ShareKV
from stableflow.interventions.statistics import MatchStatistics
from stableflow.interventions.store import KVStore

__all__ = [
    "Ablate",
    "AttentionMean",
    "Bypass",
    "Capture",
    "CaptureAttention",
    "ExtendKV",
    "InjectKV",
    "KVStore",
    "LeaveOut",
    "MatchStatistics",
    "Patch",
    "RecordKV",
    "ReuseResidual",
    "Rewrite",
    "ShareKV",
]
