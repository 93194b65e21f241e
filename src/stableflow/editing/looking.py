"""How the model is asked where something shows: by how much its velocity there depends on the words."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.otsu import otsu_threshold
from stableflow.editing.passes import standard_noise
from stableflow.editing.shape import outlined
from stableflow.editing.where import Asked, size_of
from stableflow.models.base import Conditioning
from stableflow.region import Region
from stableflow.types import Latents

LOOK_AT = (0.6, 0.45, 0.3)
"""Flow times at which a picture under fresh noise is looked at; noisier ones find less (docs/log.md)."""

PATH_LOOK_AT = (0.5, 0.375, 0.25, 0.125)
"""The same for states of a path, of which the nearest are taken."""

States = Iterable[tuple[float, Latents]]
"""Flow times, and what the model is shown at each."""


def split_words(prompt: str, other: str) -> tuple[list[str], list[str]]:
    """Return the words of a prompt that another has too, in the same order, and those that it has not."""
    words = prompt.split()
    same = SequenceMatcher(None, words, other.split(), autojunk=False).get_matching_blocks()
    kept = {i for block in same for i in range(block.a, block.a + block.size)}
    return [word for i, word in enumerate(words) if i in kept], [w for i, w in enumerate(words) if i not in kept]


def noised(run: Asked) -> States:
    """Return the source's picture under one noise."""
    generator = torch.Generator("cpu").manual_seed(0)
    for t in LOOK_AT:
        yield t, (1 - t) * run.clean + t * standard_noise(generator, run.clean.shape, run.model.device)


def on_path(run: Asked) -> States:
    """Return the source on its own path, where things are found better than under noise; under noise if it has none."""
    path, times = run.source.path, [t for t in run.source.fingerprint.times if 0.0 < t < 1.0]
    return [(t, path.at(t) + path.offsets.get(t, 0.0)) for t in nearest(times)] if times else noised(run)


def nearest(times: Sequence[float]) -> list[float]:
    """Return those of the times that are nearest to where a path is worth looking at."""
    return list(dict.fromkeys(min(times, key=lambda t: abs(t - wanted)) for wanted in PATH_LOOK_AT))


def where_differs(run: Asked, prompt: Conditioning, others: Conditioning, states: States) -> Region:
    """Return the tokens where |v(prompt) - v(other)| is large, a row for each other prompt.

    The mean over channels and states is compared.

    Source: the mask of DiffEdit (Couairon et al., ICLR 2023, arXiv:2210.11427), over velocities.
    """
    cells = [F.adaptive_avg_pool2d(gap, grid_of(run)) for gap in _gaps(run, prompt, others, states)]
    return Region(torch.cat([of_tokens(run, _high(cell)).amount for cell in cells]))


def _gaps(
    run: Asked, prompt: Conditioning, others: Conditioning, states: States
) -> list[Float[Tensor, "1 latent_height latent_width"]]:
    """Return |v(prompt) - v(other)|, the mean over channels summed over states, for each other prompt."""
    both, rows = Conditioning.concat([prompt, others]), len(others)
    total: Tensor | float = 0.0
    for t, z in states:
        velocity = run.velocity(z.expand(1 + rows, -1, -1, -1), t, both, run.scale(None))
        total = total + (velocity[1:] - velocity[:1]).abs().mean(1, keepdim=True)
    return list(torch.as_tensor(total).float().cpu())


def outline_differs(run: Asked, prompt: Conditioning, others: Conditioning, states: States) -> Region:
    """Return the outline of where |v(prompt) - v(other)| is large, by the colours of the source's picture."""
    roots = [_smoothed(gap.sqrt()) for gap in _gaps(run, prompt, others, states)]
    return Region(outlined(torch.cat(roots), run.source.images))


def of_tokens(run: Asked, inside: Float[Tensor, "1 token_rows token_columns"]) -> Region:
    """Return whole tokens as a region at the source's pixels."""
    side = run.model.pixel_multiple
    return Region(inside.repeat_interleave(side, 1).repeat_interleave(side, 2)).cropped(size_of(run))


def grid_of(run: Asked) -> tuple[int, int]:
    """Return rows and columns of the source's tokens."""
    made, side = run.source.fingerprint, run.model.pixel_multiple
    return made.height // side, made.width // side


def _high(values: Float[Tensor, "1 token_rows token_columns"]) -> Float[Tensor, "1 token_rows token_columns"]:
    """Return 1 at tokens above Otsu's threshold.

    Square roots are split, each token's own and its neighbourhood's mean alike: of the values themselves, the few
    largest would set the threshold and leave half of what is looked for outside (docs/log.md).
    """
    roots = _smoothed(values.sqrt())
    return (roots > otsu_threshold(roots.flatten())).float()


def _smoothed(values: Float[Tensor, "1 rows columns"]) -> Float[Tensor, "1 rows columns"]:
    return (values + F.avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=False)) / 2
