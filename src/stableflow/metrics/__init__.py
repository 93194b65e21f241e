"""Measures of an edit, one idea a file; each owns its resizing and normalisation.

Importing this registers every metric's name and facts; weights are loaded only when a metric is made.
"""

from stableflow.metrics.card import METRICS, Metric, MetricCard, Scores, score
from stableflow.metrics.clip import Clip, ClipDirection, ClipImage, ClipText
from stableflow.metrics.dino import Dino, DinoCls, DinoPatch
from stableflow.metrics.lpips import LPIPS
from stableflow.metrics.pixels import MSE, PSNR, SSIM, mse, psnr, ssim
from stableflow.metrics.structure import Keys, StructureDistance

__all__ = [
    "LPIPS",
    "METRICS",
    "MSE",
    "PSNR",
    "SSIM",
    "Clip",
    "ClipDirection",
    "ClipImage",
    "ClipText",
    "Dino",
    "DinoCls",
    "DinoPatch",
    "Keys",
    "Metric",
    "MetricCard",
    "Scores",
    "StructureDistance",
    "mse",
    "psnr",
    "score",
    "ssim",
]
