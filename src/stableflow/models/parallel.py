"""diffusers' context parallelism: every process computes a band of the image tokens and a part of the text.

Keys and values leave their projections before processes exchange them, so each process records and injects those of
its own band, and keeps only those. Everything else - states, noise, the loop over steps - is the same in all of them.
"""

from dataclasses import replace
from typing import Any

import torch

from stableflow.errors import InterventionError, TokenLayoutError
from stableflow.models.hooks import TokenLayout

BANDED = ("FluxTransformer2DModel",)  # whose plan cuts both streams once, before the first layer


def check_parallel(transformer: Any) -> None:
    """Raise InterventionError if the transformer is split over processes in a way that interventions cannot follow."""
    config = getattr(transformer, "_parallel_config", None)
    if config is None:
        return
    if getattr(config, "tensor_parallel_config", None) is not None:
        raise InterventionError(
            "The transformer runs under tensor parallelism, so each process sees a part of the keys' columns only. "
            "Load it without, or under context parallelism; or edit several pictures at once instead."
        )
    name = type(transformer).__name__
    if name not in BANDED or config.context_parallel_config.ring_degree > 1:
        raise InterventionError(
            f"The transformer ({name}) runs under context parallelism of a kind that was not proven equal here: only "
            f"ulysses_degree with {', '.join(BANDED)} was. Load it without enable_parallelism; edit several pictures "
            "at once instead."
        )


def processes_of(transformer: Any) -> int:
    """Return over how many processes the transformer's tokens are spread."""
    parallel = _parallel(transformer)
    return 1 if parallel is None else parallel.ulysses_degree * parallel.ring_degree


def banded(layout: TokenLayout, transformer: Any) -> TokenLayout:
    """Return where this process's tokens are, of a pass that may be spread over processes.

    Raises:
        TokenLayoutError: The image tokens, or the text, do not divide evenly.
    """
    count = processes_of(transformer)
    if count == 1:
        return layout
    if layout.image_tokens % count or layout.text_tokens % count:
        raise TokenLayoutError(
            f"{count} processes share {layout.image_tokens} image tokens and {layout.text_tokens} text tokens, which "
            "do not divide evenly. Choose another height or width, or max_sequence_length."
        )
    number = torch.distributed.get_rank(_parallel(transformer)._flattened_mesh.get_group())
    starts = {kind: start // count for kind, start in layout.image_start.items()}
    return replace(
        layout, text_tokens=layout.text_tokens // count, image_start=starts, joint_start={}, band=(number, count)
    )


def _parallel(transformer: Any) -> Any:
    config = getattr(transformer, "_parallel_config", None)
    return None if config is None else config.context_parallel_config
