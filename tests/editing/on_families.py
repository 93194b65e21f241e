"""One end-to-end check of an editor on two families, for the test of each."""

from functools import cache

import pytest
import torch
from families import FAMILIES

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.region import Region

SOURCE, EDITS = "a red dog", ["a blue dog", "a red cat on the grass"]
on_two_families = pytest.mark.parametrize("family", ["FLUX.1", "SD3"])


@cache
def model_of(family):
    return sf.wrap(FAMILIES[family].make(), name=family)


def picture(size):
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


def made(name, family, **settings):
    """An editor, and a real picture as its source."""
    editor, size = EDITORS[name](model_of(family), **settings), FAMILIES[family].size
    fewer = {"num_steps": 4} if editor.needs_path else {}
    return editor, editor.invert(picture(size), SOURCE, height=size, width=size, **fewer)


def check_end_to_end(name, family, *, ordered=True, **settings):
    """Edits change what they may and nothing else; strength 0 is the source, and little strength changes less.

    The last is not asked (`ordered`) of editors whose strength is a weight of keys and values: those of random weights
    that are mixed half and half belong to no picture. tests/editing/test_held.py asks it on the bundled model.
    """
    editor, source = made(name, family, **settings)
    size = source.images.shape[-1]
    box = Region.box(0, 0, size // 2, size, size=(size, size))
    free = editor.edit(source, EDITS)
    assert free.images.shape == (2, 3, size, size)
    assert float((free.latents - source.latents).abs().max()) > 1e-2
    held = editor.edit(source, EDITS, region=box)
    half = held.latents.shape[-1] // 2
    outside = held.images[..., size // 2 + 3 :]
    assert torch.equal(outside, source.given[..., size // 2 + 3 :].expand_as(outside)), "outside is the given picture"
    assert float((held.latents[..., half:] - source.latents[..., half:]).abs().max()) <= 1e-6
    assert float((held.latents[..., :half] - source.latents[..., :half]).abs().max()) > 1e-2
    still = editor.edit(source, EDITS, strength=0)
    assert torch.equal(still.images, source.images.expand(2, -1, -1, -1))
    moved = [
        float((editor.edit(source, EDITS, strength=s).latents - source.latents).square().mean()) for s in (0.25, 1)
    ]
    assert min(moved) > 0 and (moved[0] < moved[1] or not ordered), f"more strength changes more: {moved}"
