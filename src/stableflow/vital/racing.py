"""Racing: which layers are not yet clear of the boundary of the vital set.

Source: dropping candidates by confidence bounds is Maron and Moore, "Hoeffding Races" (NIPS 1993), and Even-Dar et al.,
"Action Elimination and Stopping Conditions" (JMLR 2006). The bounds here are those of the normal approximation, with
Bonferroni's correction over layers, not over rounds: they hold about, not strictly.
"""

from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.vital.choice import Choice


def undecided(scores: Float[Tensor, "layers prompts"], choice: Choice, confidence: float) -> list[int]:
    """Return the layers whose vitality may lie on either side of the boundary.

    Args:
        scores: NaN where a layer was not measured.
        choice: Draws the boundary through the means.
        confidence: That all layers are decided rightly.
    """
    means = scores.nanmean(dim=1)
    count = (~scores.isnan()).sum(dim=1)
    spread = (scores - means[:, None]).square().nansum(dim=1) / (count - 1).clamp(min=1)
    bound = NormalDist().inv_cdf(1 - (1 - confidence) / (2 * len(scores)))
    margin = bound * (spread / count).sqrt()
    return torch.nonzero((means - choice.boundary(means)).abs() <= margin).flatten().tolist()
