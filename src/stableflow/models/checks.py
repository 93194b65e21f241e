"""What is refused of a pipeline, and of sizes and lengths that it is asked for."""

import math
from typing import Any

from stableflow.checks import check_count
from stableflow.errors import InputError, InterventionError
from stableflow.models.parallel import check_parallel

ROUTE_AROUND = ("cache", "fbc_", "pyramid_attention_broadcast", "layer_skip", "smoothed_energy")  # diffusers hooks


def check_scheduler(pipeline: Any, name: str) -> None:
    """Raise InputError if the pipeline's scheduler adds noise at every step."""
    if pipeline.scheduler.config.get("stochastic_sampling", False):
        raise InputError(
            f"The scheduler of {name!r} has stochastic_sampling on, which adds noise at every step; a flow "
            "is deterministic. Set stochastic_sampling to false in its scheduler config."
        )


def check_open_to_interventions(transformer: Any) -> None:
    """Raise InterventionError if something routes passes around the projections, or splits them over processes."""
    check_parallel(transformer)
    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        names = [] if registry is None else list(registry.hooks)
        found = [name for name in names if any(mark in name for mark in ROUTE_AROUND)]
        if found:
            raise InterventionError(
                f"The transformer has diffusers' {found[0]!r} enabled, which leaves out layers or reuses what they "
                "computed before, so keys and values would be missing or stale. Call "
                "pipeline.transformer.disable_cache(), or load the model again, before editing."
            )


def check_multiple(name: str, height: int, width: int, multiple: int) -> None:
    """Raise InputError unless both sides are positive multiples."""
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise InputError(
            f"height and width must be positive multiples of {multiple} for {name!r}, got {height}x{width}. "
            f"The nearest is {_nearest(height, multiple)}x{_nearest(width, multiple)}."
        )


def check_side(name: str, height: int, width: int, longest: int | None) -> None:
    """Raise InputError if a side is longer than the transformer's positions reach."""
    if longest is not None and max(height, width) > longest:
        raise InputError(f"{name!r} has positions up to {longest} pixels a side, got {height}x{width}.")


def _nearest(side: int, multiple: int) -> int:
    return max(multiple, math.floor(side / multiple + 0.5) * multiple)


def checked_text_length(requested: int | None, default: int, longest: int, family: str) -> int:
    """Return the text tokens of every prompt."""
    if requested is None:
        return default
    requested = check_count("max_sequence_length", requested, -1)
    if not 1 <= requested <= longest:
        raise InputError(f"max_sequence_length must lie in 1..{longest} for {family}, got {requested}.")
    return requested


def check_num_steps(num_steps: int) -> None:
    """Raise InputError unless there is a step to make."""
    if num_steps < 1:
        raise InputError(f"num_steps must be 1 or more, got {num_steps}.")
