"""Where two prompts make a model move differently, as a mask in whole tokens."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LOOK_AT = (0.6, 0.45, 0.3)
"""Flow times at which the model is asked; the library's own (`stableflow.editing.where`)."""


def region_of(
    differences: Float[Tensor, "1 *frames latent_height latent_width"], patch: int, grow: int = 0
) -> Float[Tensor, "1 token_rows token_columns"]:
    """Return the tokens above Otsu's threshold, of square roots of the difference and of its neighbourhood alike.

    Args:
        differences: |v - v'|, mean over channels.
        patch: Side of a token in latents.
        grow: Tokens to add on each side.
    """
    from stableflow.editing.otsu import otsu_threshold  # brings diffusers, which ComfyUI need not wait for at its start

    planes = differences.reshape(1, 1, *differences.shape[-2:])
    roots = F.avg_pool2d(planes, patch, ceil_mode=True).sqrt()
    roots = (roots + F.avg_pool2d(roots, 3, stride=1, padding=1, count_include_pad=False)) / 2
    inside = (roots > otsu_threshold(roots.flatten())).float()
    return F.max_pool2d(inside, 2 * grow + 1, stride=1, padding=grow)[:, 0]
