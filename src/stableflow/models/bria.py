"""Bria (3.2 and checkpoints in that layout): FLUX's two kinds of layers, T5 alone, its padding zeros and not masked.

Guided in one pass, away from zeros: an empty negative prompt is not encoded.
"""

from collections.abc import Mapping
from typing import Any

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.family import Blocks, Family, Pass, Sizes, joint_inputs, named
from stableflow.models.guidance import classifier_free
from stableflow.models.latents import PATCH
from stableflow.models.prompts import Reader
from stableflow.models.times import flow_times, shifted_by_size


def inputs(given: Pass) -> Mapping[str, Any]:
    return {**joint_inputs(given), "timestep": given.timestep}


def times(scheduler: Any, num_steps: int, image_tokens: int) -> TimeGrid:
    # Late: the pipeline's module imports its text encoder.
    from diffusers.pipelines.bria.pipeline_bria import get_original_sigmas

    if scheduler.config.get("use_dynamic_shifting", False):
        return shifted_by_size(scheduler, num_steps, image_tokens)
    trained = scheduler.config.num_train_timesteps
    return flow_times(scheduler, num_steps, sigmas=get_original_sigmas(trained, num_steps).tolist())


def sizes(pipeline: Any) -> Sizes:
    token = pipeline.vae_scale_factor  # counts the patches, unlike in the other pipelines
    transformer, side = pipeline.transformer, pipeline.default_sample_size * token
    return Sizes(token // PATCH, PATCH, transformer.config.in_channels // PATCH**2, side, transformer.inner_dim)


BRIA = Family(
    "Bria",
    pipelines=("BriaPipeline",),
    blocks=(Blocks("double", "transformer_blocks"), Blocks("single", "single_transformer_blocks")),
    text=(128, 512),
    guidance=classifier_free(5.0),
    stacked=("unconditional", "conditional"),
    readers=lambda pipeline, length: [Reader(pipeline.tokenizer, length)],
    encode=named("encoder_hidden_states", "negative_encoder_hidden_states", None),
    inputs=inputs,
    times=times,
    sizes=sizes,
)
