"""PixelMan: a thing moved in pixels, and the collage drawn out into a picture around itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import LONGEST_SIDE, check_count, check_steps
from stableflow.editing.base import Editor, editor
from stableflow.editing.collage import filled
from stableflow.editing.displaced import check_by, displaced, thing_of
from stableflow.editing.run import Run
from stableflow.flow.stochastic import image_of
from stableflow.flow.time_grid import TimeGrid
from stableflow.region import Region
from stableflow.types import Latents

FREE_STEPS = 2  # at the end, in which the moved thing itself may settle


@editor("pixelman", paper="arXiv:2412.14283", good_for="things moved: region is the thing, by where it goes")
@dataclass(frozen=True)
class PixelMan(Editor):
    """z = collage + m (image(z_t) - image(c_t)), with z_t and c_t from z and the collage under one fresh noise.

    The collage is the picture with the thing at its new place; m is 0 inside the thing there until the last two steps.
    Edits may act where the thing stood and where it goes. Where nothing is moved this is DDCM.

    Args:
        strength: Share of the steps that are walked, at least one; all when None.
        by: Pixels (right, down) that the region's content moves.
        num_steps: Of the whole grid, two rows each.
        guidance_scale: Of both velocities.
        seam: Pixels over which m rises at the moved thing's edge.
        seed: Of the noises; when None it follows from the source.

    Source: Jiang et al., "PixelMan: Consistent Object Editing with Diffusion Models via Pixel Manipulation and
    Generation" (AAAI 2025), arXiv:2412.14283, the anchored update. There the thing stays in the collage where it stood,
    and energies and a mask in attention take it away; here that place is filled from its border first.
    """

    by: Sequence[int] = (0, 0)
    num_steps: int = 16
    guidance_scale: float = 4.0
    seam: int = 4
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("num_steps", self.num_steps)
        check_by(self.by)
        check_count("seam", self.seam, 0, LONGEST_SIDE)

    def acting(self, run: Run, region: Region | None) -> Region | None:
        return displaced(run, region, self.by, self.name)

    def times(self, run: Run) -> TimeGrid:
        whole = run.whole_grid(self.num_steps)
        return whole if self.strength is None else whole.share(self.strength)

    def start(self, run: Run) -> Latents:
        return run.rows(self._collage(run))

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        collage, noise = self._collage(run), run.noise()
        noisy = (1 - t0) * torch.cat([collage, z]) + t0 * noise
        images = image_of(noisy, run.of_both(self.guidance_scale, self.guidance_scale)(noisy, t0), t0)
        late = t0 <= run.grid.times[-1 - min(FREE_STEPS, run.grid.num_steps)]
        moves = 1.0 if late else run.once("moves", lambda: self._moves(run))
        return collage + moves * (images[1:] - images[:1])

    def held(self, run: Run, t: float) -> Latents:
        return run.clean

    def _moves(self, run: Run) -> Float[Tensor, "1 1 latent_height latent_width"] | float:
        if not any(self.by):
            return 1.0
        made = run.source.fingerprint
        placed = thing_of(run).moved(*self.by).feather(self.seam).padded((made.height, made.width))
        size = run.clean.shape[-2], run.clean.shape[-1]
        return (~placed).latents(size).to(run.clean)

    def _collage(self, run: Run) -> Latents:
        return run.once("collage", lambda: self._drawn(run)) if any(self.by) else run.clean

    def _drawn(self, run: Run) -> Latents:
        source, made, thing = run.source, run.source.fingerprint, thing_of(run)
        pixels = source.images if source.given is None else source.given
        shifted = pixels.roll((self.by[1], self.by[0]), dims=(-2, -1))
        emptied = filled(pixels, thing.amount[:, None].to(pixels))
        collage = torch.lerp(emptied, shifted, thing.moved(*self.by).amount[:, None].to(pixels))
        height, width = pixels.shape[-2:]
        padded = F.pad(collage, (0, made.width - width, 0, made.height - height), mode="replicate")
        return torch.lerp(run.clean, self.model.encode_image(padded), run.free[:1])  # outside as edits are held
