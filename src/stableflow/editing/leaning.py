"""Was an edit made? The model itself is asked which of two prompts explains a picture better."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.passes import standard_noise
from stableflow.editing.result import EditResult
from stableflow.editing.run import Method, Run
from stableflow.editing.where import read_amounts
from stableflow.models.base import Conditioning

ASKED_AT = (0.85, 0.7)
"""Flow times, noisy enough that what is where is open: the first tells places and times of day, the second figures."""

SEED = 0


def leaning(run: Run, pictures: Float[Tensor, "edits channels latent_height latent_width"]) -> Float[Tensor, " edits"]:
    """Return how much better each picture is explained by its edit's prompt than by the source's, in [-1, 1].

    Sum over two flow times of |v(z; source) - u|^2 - |v(z; edit) - u|^2, over the sum of all four, with z = (1 - t)
    picture + t noise, u = noise - picture, one noise for all, guidance 1, and only what the region leaves free. Above
    0 the edit's prompt explains the picture better.

    Cost: four rows for each picture, in two passes.

    Args:
        pictures: Final latents, a row an edit; the source's own may stand in any row.

    Source: the error under each prompt as a classifier is Li et al., "Your Diffusion Model is Secretly a Zero-Shot
    Classifier" (ICCV 2023), arXiv:2303.16203. Here all meet one noise, at two times.
    """
    noise = standard_noise(torch.Generator("cpu").manual_seed(SEED), pictures[:1].shape, pictures.device)
    both = Conditioning.concat([*[run.source.conditioning] * len(pictures), run.edits])
    errors = pictures.new_zeros(2 * len(pictures))
    for t in ASKED_AT:
        z, wanted = (1 - t) * pictures + t * noise, noise - pictures
        missed = run.velocity(torch.cat([z, z]), t, both, run.scale(1.0)) - torch.cat([wanted, wanted])
        errors = errors + (missed.square() * run.free.repeat(2, 1, 1, 1)).mean((1, 2, 3))
    source, edit = errors.chunk(2)
    return (source - edit) / (source + edit)


def judged(editor: Method, result: EditResult) -> list[float]:
    """Return the `leaning` of each edit of a result, over what its region left free."""
    asked = result.recipe["region"]
    region = None if asked is None else read_amounts(asked.partition(":")[2])
    with torch.no_grad():
        run = Run(editor, result.source, list(result.prompts), region=region)
        return leaning(run, result.latents.to(run.clean)).tolist()


def not_made(prompts: Sequence[str], leanings: Sequence[float]) -> list[str]:
    """Return a warning for each edit that the source's prompt explains better."""
    return [
        f"This edit was not made, as far as the model can tell: {prompt!r} ({lean:+.2f}, from -1 for the source's "
        'prompt to 1 for this one). Raise the strength (strength="auto" finds one), inject in fewer layers, or say '
        "more plainly what is new."
        for prompt, lean in zip(prompts, leanings)
        if lean < 0
    ]
