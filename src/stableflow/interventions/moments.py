"""Mean and spread of features, given to others."""

from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-5  # standard deviation that is divided by


def matched(
    features: Float[Tensor, "rows image_tokens dim"], source: Float[Tensor, "#rows image_tokens dim"]
) -> Float[Tensor, "rows image_tokens dim"]:
    """Return features with mean and standard deviation of the source's in every channel, over the image tokens.

    Source: Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization" (ICCV
    2017), arXiv:1703.06868, eq. 8.
    """
    (own_mean, own_std), (mean, std) = ((x.mean(1, keepdim=True), x.std(1, keepdim=True)) for x in (features, source))
    return mean + std * (features - own_mean) / own_std.clamp_min(SMALLEST)
