"""Which family reads which pipeline: one line a family."""

from collections.abc import Sequence
from typing import Any

from stableflow.models.bria import BRIA
from stableflow.models.chroma import CHROMA
from stableflow.models.family import Family
from stableflow.models.flux import FLUX
from stableflow.models.flux2 import FLUX2
from stableflow.models.loras import Lora
from stableflow.models.model import DiffusersModel
from stableflow.models.qwen_image import QWEN_IMAGE
from stableflow.models.sd3 import SD3
from stableflow.models.turns import check_weights_are_here
from stableflow.models.z_image import Z_IMAGE
from stableflow.registry import Registry

FAMILIES: Registry[Family] = Registry("pipeline class")
"""From the `_class_name` of a model_index.json to the family of such a pipeline."""

for _family in (FLUX, BRIA, CHROMA, FLUX2, QWEN_IMAGE, SD3, Z_IMAGE):
    for _pipeline in _family.pipelines:
        FAMILIES.register(_pipeline)(_family)


def family_of(pipeline_class: type) -> Family:
    """Return the family that reads pipelines of this class, or of a class that it is made from.

    Raises:
        UnknownNameError: None does.
    """
    known = [base.__name__ for base in pipeline_class.__mro__ if base.__name__ in FAMILIES]
    return FAMILIES[known[0] if known else pipeline_class.__name__]


def wrap(
    pipeline: Any, *, name: str | None = None, max_sequence_length: int | None = None, loras: Sequence[Lora] = ()
) -> DiffusersModel:
    """Return the model over a diffusers pipeline that is loaded already.

    Args:
        pipeline: A diffusers pipeline of a supported class; it is used as it is.
        name: What presets and messages call the checkpoint; the pipeline's own `_name_or_path` when None.
        max_sequence_length: Text tokens of every prompt; the tokenizer's limit when None.
        loras: What `load` put on it, for recipes; LoRAs that are on otherwise are told by peft's names.

    Raises:
        UnknownNameError: No family reads this class of pipeline.
        InterventionError: It is offloaded layer by layer.
    """
    family = family_of(type(pipeline))
    check_weights_are_here(pipeline.transformer)
    known_as: str = name or getattr(pipeline, "_name_or_path", "") or type(pipeline).__name__
    return DiffusersModel(pipeline, family, name=known_as, max_sequence_length=max_sequence_length, loras=loras)
