"""Steps of a rectified flow that draw noise anew, in z_t = (1 - t) image + t noise with v = noise - image."""

import math

from jaxtyping import Float
from torch import Tensor

State = Float[Tensor, "#batch channels latent_height latent_width"]


def image_of(z: State, velocity: State, t: float) -> State:
    """Return the image that a state points at: z - t v."""
    return z - t * velocity


def noise_of(z: State, velocity: State, t: float) -> State:
    """Return the noise that a state comes from: z + (1 - t) v."""
    return z + (1 - t) * velocity


def mean(z: State, velocity: State, t0: float, t1: float, sigma: float) -> State:
    """Return (1 - t1) image + sqrt(t1^2 - sigma^2) noise, both as estimated at t0: Euler's step for sigma = 0.

    With sigma x fresh noise added it is a state at t1 again, whatever sigma in [0, t1]. Linear in z and velocity.
    """
    kept = math.sqrt(max(t1**2 - sigma**2, 0.0))
    return (1 - t1) * image_of(z, velocity, t0) + kept * noise_of(z, velocity, t0)


def ancestral_sigma(t0: float, t1: float) -> float:
    """Return the noise of the reverse step t0 -> t1 of the chain of states: that of DDPM's posterior.

    sigma^2 = t1^2 (1 - r^2) with r = (1 - t0) t1 / ((1 - t1) t0); all of t1 where the step starts at noise.
    """
    if t1 == 0.0:
        return 0.0
    return t1 * math.sqrt(1 - ((1 - t0) * t1 / ((1 - t1) * t0)) ** 2)


def turned(noise: State, fresh: State, share: float) -> State:
    """Return noise of which `share` is fresh and which is as strong as before: sqrt(1 - share^2) noise + share fresh.

    Args:
        noise, fresh: Independent, of unit variance.
        share: In [0, 1]: 0 changes nothing, 1 forgets the noise.
    """
    return math.sqrt(1 - share**2) * noise + share * fresh


def renoised(z: State, fresh: State, t0: float, t1: float) -> State:
    """Return a state at the noisier time t1 from one at t0: a z + sqrt(t1^2 - a^2 t0^2) fresh, a = (1 - t1) / (1 - t0).

    Of the image as much is left, and of noise as much is there, as states at t1 have.

    Args:
        fresh: Noise of unit variance, independent of the state's own.
        t0, t1: Flow times, t0 <= t1 and t0 < 1.
    """
    kept = (1 - t1) / (1 - t0)
    return kept * z + math.sqrt(max(t1**2 - (kept * t0) ** 2, 0.0)) * fresh
