"""A synthetic world with exact ground truth: the true target image and changed region of any edit are known."""

from stableflow.scenes.captions import caption, random_keep, vocabulary
from stableflow.scenes.render import changed_region, render, render_pil, silhouette
from stableflow.scenes.world import (
    ATTRIBUTES,
    CONTINUOUS,
    HIDDEN,
    LAYERS,
    Scene,
    attributes,
    edit,
    held_out,
    sample,
    sample_split,
)

__all__ = [
    "ATTRIBUTES",
    "CONTINUOUS",
    "HIDDEN",
    "LAYERS",
    "Scene",
    "attributes",
    "caption",
    "changed_region",
    "edit",
    "held_out",
    "random_keep",
    "render",
    "render_pil",
    "sample",
    "sample_split",
    "silhouette",
    "vocabulary",
]
