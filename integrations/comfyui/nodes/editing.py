"""Nodes that say what an edit keeps of its source, and the one that makes a model do it."""

import torch
from comfy_api.latest import io

from stableflow.errors import InputError

from .. import host
from ..engine.holds import Free, Hold, dialled
from ..engine.injection import Injection
from ..engine.layers import find_layers, preset_names
from ..engine.passes import grid_of
from ..engine.warp import Warp
from .types import CATEGORY, HoldType, SourceType

OWN = "written below"
EVERY = "all layers"


class VitalLayers(io.ComfyNode):
    """Layers by a published or measured set, or written down."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowVitalLayers",
            display_name="Vital layers (Stable Flow)",
            category=CATEGORY,
            description="Where keys and values of the source are held. With a mask, outside of it, all layers are better.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("preset", options=[*preset_names(), EVERY, OWN], default=preset_names()[0]),
                io.String.Input("layers", default="0, 1, 17", tooltip=f"With {OWN!r}: numbers in execution order, or by kind, such as double: 0, 1; single: 6."),
                io.Float.Input("weight", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="1 replaces the edit's keys and values by the source's."),
            ],
            outputs=[HoldType.Output("hold")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, preset, layers, weight) -> io.NodeOutput:
        numbering = host.numbering_of(model)
        chosen = (
            numbering.parse({OWN: layers, EVERY: "all"}[preset])
            if preset in (OWN, EVERY)
            else find_layers(preset, numbering)
        )
        return io.NodeOutput((Hold(chosen, weight, "kept"),))


class Strength(io.ComfyNode):
    """One dial from the source to a free edit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowStrength",
            display_name="Strength (Stable Flow)",
            category=CATEGORY,
            description="Holds all layers with weight (1 - strength)^2; with a mask, inside of it, and all of it outside.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("strength", default=0.7, min=0.0, max=1.0, step=0.01, tooltip="0 is the source, 1 the freest edit."),
            ],
            outputs=[HoldType.Output("hold")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, strength) -> io.NodeOutput:
        return io.NodeOutput(dialled(host.numbering_of(model).parse("all"), strength))


class Inject(io.ComfyNode):
    """A clone of the model whose samplers make edits of the source."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowInject",
            display_name="Inject (Stable Flow)",
            category=CATEGORY,
            description="Give the model that comes out to any sampler, with the edited prompt and the source's steps.",
            inputs=[
                io.Model.Input("model"),
                SourceType.Input("source"),
                HoldType.Input("hold"),
                io.Mask.Input("mask", optional=True, tooltip="White may change; all else stays on the source's path."),
                io.Boolean.Input("start_at_source", default=True, tooltip="Begin at the source's noise, whatever seed the sampler has."),
                io.Combo.Input("times", options=["same", "nearest"], default="same", tooltip="'nearest' lets samplers go where the source was not, at a loss."),
            ],
            outputs=[io.Model.Output("model_out", display_name="model")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, source, hold, mask=None, start_at_source=True, times="same") -> io.NodeOutput:
        free = None if mask is None else Free(as_masks(mask))
        numbering, patch = host.numbering_of(model), host.patch_of(model)
        injection = Injection(source, hold, free, numbering, patch, start=start_at_source, times=times)
        return io.NodeOutput(host.injected(model, injection))


class Move(io.ComfyNode):
    """Something of the source in another place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowMove",
            display_name="Move (Stable Flow)",
            category=CATEGORY,
            description="Carries what the mask covers by whole tokens (16 pixels in FLUX). Give Inject all layers and the mask that comes out: the place that was left.",
            inputs=[
                io.Model.Input("model"),
                SourceType.Input("source"),
                io.Mask.Input("mask", tooltip="What moves, with its shadow."),
                io.Int.Input("right", default=64, min=-8192, max=8192, tooltip="In pixels; rounded to whole tokens."),
                io.Int.Input("down", default=0, min=-8192, max=8192, tooltip="In pixels; rounded to whole tokens."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip="Of the noise where it was."),
            ],
            outputs=[SourceType.Output("source_out", display_name="source"), io.Mask.Output("mask_out", display_name="vacated")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, source, mask, right, down, seed) -> io.NodeOutput:
        grid, side = grid_of(tuple(source.picture.shape), host.patch_of(model)), host.side_of(model)
        shift = round(right / side), round(down / side)
        if shift == (0, 0):
            raise InputError(f"A move by {right}, {down} pixels is less than half a token of {side} pixels.")
        covered = Free(as_masks(mask)[:1]).tokens(grid)[0] >= 0.5
        warp = Warp.moving(covered, *shift, seed=seed)
        return io.NodeOutput(source.moved(warp), host.in_pixels(model, warp.vacated.float()[None]))


class Background(io.ComfyNode):
    """Keep a figure, change what is around it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowBackground",
            display_name="Background (Stable Flow)",
            category=CATEGORY,
            description="For Inject: holds all layers where the figure is and frees the rest, which follows the prompt.",
            inputs=[
                io.Model.Input("model"),
                SourceType.Input("source"),
                io.Mask.Input("figure", tooltip="White is what stays, in whole tokens."),
            ],
            outputs=[HoldType.Output("hold"), io.Mask.Output("mask")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, source, figure) -> io.NodeOutput:
        layers = host.numbering_of(model).parse("all")
        figure = Free(as_masks(figure)).tokens(grid_of(tuple(source.picture.shape), host.patch_of(model)))
        return io.NodeOutput((Hold(layers, 1.0, "kept"),), host.in_pixels(model, 1 - figure.ceil()))


def as_masks(mask: torch.Tensor) -> torch.Tensor:
    """Return masks as (number, height, width)."""
    return mask.float().reshape(-1, *mask.shape[-2:]).cpu()
