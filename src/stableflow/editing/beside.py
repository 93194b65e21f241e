"""The same states under two prompts: what editors ask that lead from the source's prompt to the edit's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stableflow.editing.run import Run
from stableflow.models.base import Conditioning, Guidance
from stableflow.types import Latents

UNGUIDED = 1.0


def under_both(
    run: Run, z: Latents, t: float, guidance: float | None = UNGUIDED, *, away: Conditioning | None = None
) -> tuple[Tensor, Tensor]:
    """Return the velocities of the edits' states under another prompt and under their own, in one evaluation.

    Args:
        z: A state an edit.
        guidance: Of the edits' own prompts; the other prompt is not guided.
        away: The other prompt, of one row; the source's when None.
    """
    other = run.source.conditioning if away is None else away
    both = run.once(("beside", id(other)), lambda: Conditioning.concat([other] * len(z) + [run.edits]))
    scales = run.scales(guidance)
    every: Sequence[float] | None = None if scales is None else [UNGUIDED] * len(z) + list(scales)
    first, second = run.velocity(torch.cat([z, z]), t, both, every).chunk(2)
    return first, second


def difference(
    run: Run, z: Latents, t: float, source_guidance: float | None, guidance: Guidance, count: int = 1
) -> Latents:
    """Return v^tar - v^src of FlowEdit, averaged over noises; both pass the model in one batch under the same noise.

    Args:
        z: Where the edits are between the source's picture and theirs; they are evaluated as far beside the noisy
            source.
        count: Of noises.
    """
    velocity, total = run.of_both(source_guidance, guidance), torch.zeros_like(z)
    for _ in range(count):
        noisy = run.noised(t)
        both = velocity(torch.cat([noisy, noisy + (z - run.clean)]), t)
        total = total + both[1:] - both[:1]
    return total / count


def spread(amount: Tensor, *, quantile: float = 1.0) -> Tensor:
    """Return a map of each row moved into [0, 1]: its least value to 0, its greatest (or this quantile) to 1.

    Args:
        amount: (batch, 1, height, width); a row that is the same everywhere becomes 0.
        quantile: From which on it is 1.
    """
    flat = amount.flatten(1)
    low, high = flat.amin(1), flat.quantile(quantile, dim=1)
    low, high = (bound.reshape(-1, 1, 1, 1) for bound in (low, high))
    return ((amount - low) / (high - low).clamp_min(1e-7)).clamp(0, 1)
