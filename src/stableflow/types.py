"""The tensor words that every signature shares."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "batch channels latent_height latent_width"]
Images = Float[Tensor, "batch 3 height width"]

Velocity = Callable[[Tensor, float], Tensor]
"""A velocity field: (latents, t) -> dz/dt at flow time t, of the latents' shape."""
