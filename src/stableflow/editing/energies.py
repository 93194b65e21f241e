"""Energies over a layer's features: their gradient leads a flow, at a length that follows another push."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.beside import UNGUIDED
from stableflow.editing.passes import differentiable
from stableflow.editing.run import Run
from stableflow.models.base import Conditioning, Forward, Layer, ProjectionHook
from stableflow.types import Latents

Energy = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""From image keys of layers, (rows, tokens, dim) each, and the source's, of one row, to one number."""


def led(
    run: Run, z: Latents, t: float, held: Float[Tensor, "1 *shape"], layers: Sequence[int], energy: Energy
) -> tuple[Latents, Latents]:
    """Return the source's velocity at the edits' states, and the gradient there of an energy over keys.

    Args:
        z: A state an edit.
        held: Where the source is; both are seen under its prompt.
    """
    kept, told = Keys(layers, []), run.source.conditioning
    with run.model.attach(kept):
        run.velocity(held, t, told, UNGUIDED)
        wanted, rows = kept.taken(), run.once("rows", lambda: Conditioning.concat([told] * len(z)))
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            run.nfe["edit"] += 1
            own = differentiable(run.model).velocity_with_grad(z, t, rows, guidance_scale=UNGUIDED)
            (gradient,) = torch.autograd.grad(energy(kept.taken(), wanted), z)
    return own.detach(), gradient


def rescaled(gradient: Tensor, push: Tensor, low: float, high: float) -> Tensor:
    """Return the gradient at a length between low and high times that of the push, row by row."""
    long, far = (x.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, 1, 1, 1) for x in (gradient, push))
    return (long / far).clamp(low, high) * far / long * gradient


@dataclass(frozen=True)
class Keys:
    """Image keys of layers, with gradients."""

    layers: Sequence[int]
    seen: list[Tensor]

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [ProjectionHook(layers[index], "key", self._keep) for index in self.layers]

    def _keep(self, forward: Forward, keys: Tensor) -> None:
        self.seen.append(keys.float())

    def taken(self) -> list[Tensor]:
        """Return what was seen since it was last asked."""
        return [self.seen.pop(0) for _ in list(self.seen)]
