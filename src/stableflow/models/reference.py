"""Reference pictures of trained editors: more tokens behind the image's own, which attention reads and nobody draws.

They go with a prompt's tensors, so that every pass of the prompt has them, in both branches of guidance.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stableflow.errors import InputError
from stableflow.models.base import Conditioning
from stableflow.models.guidance import NEGATIVE, takes_negative

TOKENS, POSITIONS = "reference", "reference_ids"

Refer = Callable[[Any, Sequence[Tensor]], tuple[Tensor, Tensor]]
"""From (pipeline, pictures in [-1, 1]) to their tokens (1, tokens, dim) and position ids (1, tokens, axes)."""


def refer(
    pipeline: Any, family: str, how: Refer | None, conditioning: Conditioning, pictures: Sequence[Tensor]
) -> Conditioning:
    """Return a conditioning with reference pictures, the same for every row.

    Raises:
        InputError: This kind of model takes none, or the conditioning has some.
    """
    if how is None:
        raise InputError(
            f"{family} takes no reference picture here. FLUX.1-Kontext (`-m kontext`) and FLUX.2 (`-m klein-4b`, "
            "`-m flux2-dev`) do; or edit without reference=."
        )
    if TOKENS in conditioning.tensors:
        raise InputError("This conditioning has reference pictures already; encode the prompt again for others.")
    tokens, positions = how(pipeline, pictures)
    rows = len(conditioning)
    own = {TOKENS: tokens.expand(rows, -1, -1), POSITIONS: positions.expand(rows, -1, -1)}
    if takes_negative(conditioning):
        own |= {f"{NEGATIVE}{name}": tensor for name, tensor in own.items()}
    return Conditioning(conditioning.prompts, {**conditioning.tensors, **own})


def with_reference(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a transformer with the tokens of reference pictures behind the image's own."""
    inputs = dict(inputs)
    tokens, positions = inputs.pop(TOKENS, None), inputs.pop(POSITIONS, None)
    if tokens is None:
        return inputs
    hidden, ids = inputs["hidden_states"], inputs["img_ids"]
    inputs["hidden_states"] = torch.cat([hidden, tokens.to(hidden)], dim=1)
    inputs["img_ids"] = torch.cat([ids, positions[0].to(ids)])
    return inputs
