"""Blocks for diffusers' modular pipelines: one makes a source, one edits it; the edit is the library's."""
# diffusers types its blocks' class attributes as None and their properties as literals:
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false, reportAssignmentType=false

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import torch
from diffusers import FluxPipeline
from diffusers.modular_pipelines import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec, InputParam, OutputParam

from stableflow.checks import check_path
from stableflow.files import write_text_atomic
from stableflow.integrations.asked import Asked, drawings, editor_for, region_for
from stableflow.integrations.pipeline import StableFlowPipeline, edits, prompts_of
from stableflow.integrations.tensors import OUTPUT_TYPES, as_output
from stableflow.models.model import DiffusersModel

SOURCE_INPUTS = [
    InputParam("image", description="The picture to edit; drawn from source_prompt when there is none."),
    InputParam("source_prompt", str, required=True, description="What the picture shows."),
    InputParam("height", int, description="Pixels; the picture's own, or the checkpoint's."),
    InputParam("width", int, description="Pixels; the picture's own, or the checkpoint's."),
    InputParam("generator", torch.Generator, description="Of a drawn source's noise."),
    InputParam("latents", torch.Tensor, description="A drawn source's noise itself, instead of a generator."),
]
SHARED_INPUTS = [
    InputParam("num_inference_steps", int, description="The editor's own when not given."),
    InputParam("guidance_scale", float, description="The editor's own when not given."),
    InputParam("editor", str, default="stable-flow", description="A name that `stableflow editors` lists."),
    InputParam("layers", description='"vital", "all" or layer numbers, for editors that hold layers.'),
    InputParam("editor_kwargs", dict, description="More of the editor's settings."),
]
EDIT_INPUTS = [
    InputParam("prompt", required=True, description="What the picture should show: one or several edited prompts."),
    InputParam("strength", float, description="0 is the picture itself, 1 the freest edit."),
    InputParam("negative_prompt", str, description="For families with classifier-free guidance."),
    InputParam("mask_image", description="White where the edit may act."),
    InputParam("region", description='Where the edit may act, in words: "word:dog", "box:x,y,w,h", "change".'),
    InputParam("output_type", str, default="pil", description=f"{', '.join(OUTPUT_TYPES)}."),
]


class StableFlowStep(ModularPipelineBlocks):
    """What both steps share: the components of FLUX, and the library's view of them."""

    model_name = "flux"
    host: ClassVar[type] = FluxPipeline

    @property
    def expected_components(self) -> list[ComponentSpec]:
        hints = get_type_hints(self.host.__init__)
        parameters = inspect.signature(self.host.__init__).parameters.values()
        needed = [
            known.name for known in parameters if known.name != "self" and known.default is inspect.Parameter.empty
        ]
        return [ComponentSpec(name, hints[name]) for name in needed]

    def model(self, components: Any) -> DiffusersModel:
        """Return the library's view of a pipeline's components; they are not copied."""
        parts = {str(spec.name): getattr(components, str(spec.name)) for spec in self.expected_components}
        host = edits(self.host)(**parts)
        host.register_to_config(_name_or_path=str(getattr(components, "_pretrained_model_name_or_path", "") or ""))
        return StableFlowPipeline._model(host, None)


class StableFlowSourceStep(StableFlowStep):
    """Invert a picture, or draw one: its path, keys and values are what edits start from."""

    @property
    def description(self) -> str:
        return "Make a Stable Flow source: invert a picture that source_prompt describes, or draw one from it."

    @property
    def inputs(self) -> list[InputParam]:
        return [*SOURCE_INPUTS, *SHARED_INPUTS]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("source", description="The source, to be edited as often as you like.")]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> Any:
        given: Any = self.get_block_state(state)
        model = self.model(components)
        asked = _asked(given.as_dict(), prompts=("",))
        chosen = editor_for(model, given.editor, asked, None, None, given.layers, given.editor_kwargs or {})
        given.source = drawings(model, chosen, asked)[0].source(None)
        self.set_block_state(state, given)
        return components, state


class StableFlowEditStep(StableFlowStep):
    """Edit a source under one or several prompts."""

    @property
    def description(self) -> str:
        return "Edit a Stable Flow source: its keys and values are read in vital layers, prompts say what changes."

    @property
    def inputs(self) -> list[InputParam]:
        return [InputParam("source", required=True, description="From the source step."), *EDIT_INPUTS, *SHARED_INPUTS]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [
            OutputParam("images", description="One picture a prompt."),
            OutputParam("result", description="The library's result: latents, recipe, save."),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> Any:
        given: Any = self.get_block_state(state)
        model = self.model(components)
        asked = _asked({**given.as_dict(), "source_prompt": None}, prompts=prompts_of(given.prompt))
        chosen = editor_for(
            model, given.editor, asked, given.strength, given.negative_prompt, given.layers, given.editor_kwargs or {}
        )
        where = region_for(given.mask_image, given.region)
        given.result = drawings(model, chosen, asked)[0].edit(given.source, region=where, callback=None)
        given.images = OUTPUT_TYPES[given.output_type](as_output(model, given.result, given.output_type))
        self.set_block_state(state, given)
        return components, state


class StableFlowBlocks(SequentialPipelineBlocks):
    """Source, then edit: `StableFlowBlocks().init_pipeline("black-forest-labs/FLUX.1-dev")`."""

    model_name = "flux"
    block_classes: ClassVar[list[type]] = [StableFlowSourceStep, StableFlowEditStep]
    block_names: ClassVar[list[str]] = ["source", "edit"]

    @property
    def description(self) -> str:
        return (
            "Training-free image editing: say what a picture shows (source_prompt) and what it should show (prompt); "
            "what both have in common stays."
        )


def _asked(given: Mapping[str, Any], prompts: tuple[str, ...]) -> Asked:
    names = ("image", "source_prompt", "source", "height", "width", "num_inference_steps", "guidance_scale", "latents")
    values = {name: given.get(name) for name in names}
    return Asked(prompts=prompts, num_images_per_prompt=1, generator=given.get("generator"), **values)


BLOCK_FILE = '''"""Stable Flow as modular blocks; the code is in the package stableflow (pip install stableflow)."""

from diffusers.modular_pipelines import SequentialPipelineBlocks
from stableflow.integrations.modular import StableFlowBlocks as Blocks


class StableFlowBlocks(Blocks, SequentialPipelineBlocks):
    _requirements = {"stableflow": ">=0.2"}
'''


def write_blocks(folder: str | Path, weights: str = "black-forest-labs/FLUX.1-dev") -> Path:
    """Write a folder that `diffusers-cli schema` shows and `diffusers-cli run --trust-remote-code` runs.

    It holds no weights: the index names where they are. Pushed to the hub as it is, it is a custom block.

    Args:
        folder: Made if needed.
        weights: A hub id, or a folder in diffusers' layout.
    """
    folder = check_path("folder", folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / "block.py", BLOCK_FILE)
    blocks = type(
        "StableFlowBlocks", (StableFlowBlocks,), {"__module__": "block", "_requirements": {"stableflow": ">=0.2"}}
    )()
    blocks.save_pretrained(str(folder))
    blocks.init_pipeline(weights).save_pretrained(str(folder), overwrite_modular_index=False)
    return folder
