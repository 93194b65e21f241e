"""Regions that the model itself finds: where words show, and what an edit changes."""

import re
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.otsu import otsu_threshold
from stableflow.editing.passes import standard_noise
from stableflow.editing.where import REGIONS, Asked, size_of, take_none
from stableflow.errors import InputError, unknown_name
from stableflow.models.base import Conditioning
from stableflow.region import Region

LOOK_AT = (0.6, 0.45, 0.3)
"""Flow times at which the model is asked where something is; noisier ones find it less well (docs/log.md)."""


@REGIONS.register("word")
def of_word(run: Asked, details: str) -> Region:
    """Where words of the source's prompt show: "word:dog", "word:red hat". Found by leaving them out."""
    prompt, wanted = run.source.conditioning.prompts[0], re.findall(r"\w+", details.lower())
    words = re.findall(r"\w+", prompt.lower())
    missing = [word for word in wanted if word not in words]
    if missing or not wanted:
        raise unknown_name("word of the source's prompt", missing[0] if missing else details, dict.fromkeys(words))
    without = re.sub(rf"\b({'|'.join(wanted)})\b", "", prompt, flags=re.IGNORECASE)
    return _of_difference(run, run.model.encode_prompt([" ".join(without.split())]))


@REGIONS.register("lost")
def of_lost(run: Asked, details: str) -> Region:
    """Where the words show that an edit's prompt no longer has, grown by one token; a region an edit."""
    take_none("lost", details)
    source = run.source.conditioning.prompts[0]
    kept = [without_lost(source, edited) for edited in run.edits.prompts]
    return _of_difference(run, run.model.encode_prompt(kept)).grow(run.model.pixel_multiple)


@REGIONS.register("change")
def of_change(run: Asked, details: str) -> Region:
    """Where the edits' prompts ask for something else than the source's; a region an edit."""
    take_none("change", details)
    return _of_difference(run, run.edits)


@REGIONS.register("foreground")
def of_foreground(run: Asked, details: str) -> Region:
    """Where the source's prompt says more than an empty one: what it names."""
    take_none("foreground", details)
    return _of_difference(run, run.model.encode_prompt([""]))


def without_lost(source: str, edited: str) -> str:
    """Return the source's prompt without the words that the edited prompt has lost.

    Raises:
        InputError: It has lost none.
    """
    words, others = source.split(), edited.split()
    same = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    kept = [word for block in same for word in words[block.a : block.a + block.size]]
    if len(kept) == len(words):
        raise InputError(
            f"The edited prompt {edited!r} has every word of {source!r}, so there is no word whose place could be "
            "looked for. Leave out what is to go, or give a region."
        )
    return " ".join(kept)


def _of_difference(run: Asked, others: Conditioning) -> Region:
    """Tokens where |v(source's prompt) - v(other prompt)| is large, by Otsu's threshold; a row for each other prompt.

    Both see the source's picture under one noise, at a few late times; the mean over channels and times is compared.

    Source: the mask of DiffEdit (Couairon et al., ICLR 2023, arXiv:2210.11427), over velocities.
    """
    both, rows = Conditioning.concat([run.source.conditioning, others]), len(others)
    generator = torch.Generator("cpu").manual_seed(0)
    total: Tensor | float = 0.0
    for t in LOOK_AT:
        noise = standard_noise(generator, run.clean.shape, run.model.device)
        noisy = ((1 - t) * run.clean + t * noise).expand(1 + rows, -1, -1, -1)
        velocity = run.velocity(noisy, t, both, run.scale(None))
        total = total + (velocity[1:] - velocity[:1]).abs().mean(1, keepdim=True)
    cells = F.adaptive_avg_pool2d(torch.as_tensor(total), _grid(run)).float().cpu()
    return Region(torch.cat([_of_tokens(run, cell).amount for cell in cells]))


def _of_tokens(run: Asked, values: Float[Tensor, "1 token_rows token_columns"]) -> Region:
    """The tokens above Otsu's threshold, at the source's pixels.

    Square roots are split, each token's own and its neighbourhood's mean alike: of the values themselves, the few
    largest would set the threshold and leave half of what is looked for outside (docs/log.md).
    """
    roots = values.sqrt()
    roots = (roots + F.avg_pool2d(roots, 3, stride=1, padding=1, count_include_pad=False)) / 2
    inside, side = (roots > otsu_threshold(roots.flatten())).float(), run.model.pixel_multiple
    whole = Region(inside.repeat_interleave(side, 1).repeat_interleave(side, 2))
    return whole.cropped(size_of(run))


def _grid(run: Asked) -> tuple[int, int]:
    made, side = run.source.fingerprint, run.model.pixel_multiple
    return made.height // side, made.width // side
