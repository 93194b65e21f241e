"""Which class reads which pipeline: one line a family."""

from collections.abc import Callable
from typing import Any

from stableflow.models.base import FlowModel
from stableflow.models.bria import BriaModel
from stableflow.models.chroma import ChromaModel
from stableflow.models.flux import FluxModel
from stableflow.models.flux2 import Flux2Model
from stableflow.models.qwen_image import QwenImageModel
from stableflow.models.sd3 import SD3Model
from stableflow.models.turns import check_weights_are_here
from stableflow.models.z_image import ZImageModel
from stableflow.registry import Registry

FAMILIES: Registry[Callable[..., FlowModel]] = Registry("pipeline class")
"""From the `_class_name` of a model_index.json to the model over such a pipeline."""

FAMILIES.register("FluxPipeline")(FluxModel)
FAMILIES.register("FluxKontextPipeline")(FluxModel)  # without a reference picture
FAMILIES.register("BriaPipeline")(BriaModel)
FAMILIES.register("ChromaPipeline")(ChromaModel)
FAMILIES.register("Flux2Pipeline")(Flux2Model)
FAMILIES.register("Flux2KleinPipeline")(Flux2Model)
FAMILIES.register("QwenImagePipeline")(QwenImageModel)
FAMILIES.register("StableDiffusion3Pipeline")(SD3Model)
FAMILIES.register("ZImagePipeline")(ZImageModel)


def wrap(pipeline: Any, *, name: str | None = None, max_sequence_length: int | None = None) -> FlowModel:
    """Return the model over a diffusers pipeline that is loaded already.

    Args:
        pipeline: A diffusers pipeline of a supported class; it is used as it is.
        name: What presets and messages call the checkpoint; the pipeline's own `_name_or_path` when None.
        max_sequence_length: Text tokens of every prompt; the tokenizer's limit when None.

    Raises:
        UnknownNameError: No family reads this class of pipeline.
        InterventionError: It is offloaded layer by layer.
    """
    family = FAMILIES[type(pipeline).__name__]
    check_weights_are_here(pipeline.transformer)
    name = name or getattr(pipeline, "_name_or_path", "") or type(pipeline).__name__
    return family(pipeline, name=name, max_sequence_length=max_sequence_length)
