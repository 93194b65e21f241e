"""The published way of working, plainly: every request makes its source again and runs it beside its edits.

What speed is measured against. A picture is inverted for every request, and the source is row 0 of one batch.

Source: Avrahami et al., "Stable Flow: Vital Layers for Training-Free Image Editing" (CVPR 2025), arXiv:2411.14430.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stableflow.editing.on_path import REAL_EDIT_GUIDANCE
from stableflow.editing.passes import standard_noise
from stableflow.flow.integrate import integrate
from stableflow.flow.inversion import Anchored, invert, nudge, unnudge
from stableflow.flow.solvers import Euler, FixedPoint
from stableflow.images import PictureLike, prepare
from stableflow.interventions import ShareKV
from stableflow.models.base import Conditioning, FlowModel, Guidance
from stableflow.types import Images, Velocity
from stableflow.vital.presets import default_nudge_scale


def draw_and_edit(
    model: FlowModel, layers: Sequence[int], prompt: str, edits: Sequence[str], *, seed: int, num_steps: int = 15
) -> Images:
    """Draw a source and its edits in one batch from one noise; the source comes first."""
    height, width = model.default_size
    conditioning = model.encode_prompt([prompt, *edits])
    shape = (1, *model.latent_shape(height, width))
    noise = standard_noise(torch.Generator("cpu").manual_seed(seed), shape, model.device)
    velocity = _velocity(model, conditioning, model.default_guidance_scale)
    with model.attach(ShareKV(layers)):
        rows = noise.expand(1 + len(edits), -1, -1, -1)
        latents = integrate(velocity, rows, model.time_grid(num_steps, height, width), Euler())
    return model.decode_latents(latents)


def invert_and_edit(
    model: FlowModel,
    layers: Sequence[int],
    image: PictureLike,
    prompt: str,
    edits: Sequence[str],
    *,
    num_steps: int = 50,
) -> Images:
    """Invert a picture, then sample it and its edits in one batch, the source put back on its path after every step."""
    picture = prepare(image, multiple=model.pixel_multiple, max_side=max(model.default_size)).pixels
    height, width = picture.shape[-2:]
    grid, scale = model.time_grid(num_steps, height, width), default_nudge_scale(model)
    clean = nudge(model.encode_image(picture), scale)
    path = invert(_velocity(model, model.encode_prompt([prompt]), 1.0), clean, grid, FixedPoint()).trajectory
    guidance = [1.0] + [REAL_EDIT_GUIDANCE] * len(edits)
    velocity = _velocity(model, model.encode_prompt([prompt, *edits]), guidance)
    rows = path.at(grid.times[0]).expand(1 + len(edits), -1, -1, -1)
    with model.attach(ShareKV(layers)):
        latents = integrate(velocity, rows, grid, Anchored(Euler(), path))
    return model.decode_latents(unnudge(latents, scale))


def _velocity(model: FlowModel, conditioning: Conditioning, guidance_scale: Guidance) -> Velocity:
    def velocity(latents: Tensor, t: float) -> Tensor:
        return model.velocity(latents, t, conditioning, guidance_scale=guidance_scale)

    return velocity
