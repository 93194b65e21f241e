"""The nodes of the pack."""

from comfy_api.latest import ComfyExtension, io

from .nodes.editing import Background, Inject, Move, Strength, VitalLayers
from .nodes.region import RegionFromWord
from .nodes.sources import Invert, SourceFromSampler
from .nodes.tiny import BundledModel
from .nodes.vital import MeasureVital

NODES: list[type[io.ComfyNode]] = [
    Invert,
    SourceFromSampler,
    VitalLayers,
    Strength,
    Inject,
    RegionFromWord,
    Move,
    Background,
    MeasureVital,
    BundledModel,
]


class StableFlowExtension(ComfyExtension):
    """What `comfy_entrypoint` returns."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
