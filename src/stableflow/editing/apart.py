"""Edits pushed away from what the source's prompt says, inside their region."""

import torch

from stableflow.editing.on_path import shares_batch
from stableflow.editing.run import Run
from stableflow.models.base import Conditioning, Guidance
from stableflow.types import Latents, Velocity


def pushed(run: Run, guidance: Guidance, by: float) -> Velocity:
    """Return v + by m (v - v_0): v under an edit's prompt, v_0 under the source's at the same state, m the region.

    Classifier-free guidance with the source's prompt as the negative one, for families that take none as well. It costs
    one more row an edit.
    """
    edits, shared, source = len(run.edits), shares_batch(run), run.source.conditioning
    conditioning = Conditioning.concat([*[source] * shared, run.edits, *[source] * edits])
    scales, own = run.scales(guidance), run.scale(run.source.fingerprint.guidance_scale)
    every = None if scales is None else [*[own or 0.0] * shared, *scales, *scales]

    def velocity(z: Latents, t: float) -> Latents:
        both = run.velocity(torch.cat([z, z[-edits:]]), t, conditioning, every)
        beside, v, before = both.split([len(z) - edits, edits, edits])
        return torch.cat([beside, v + by * run.free * (v - before)])

    return velocity
