"""FreqEdit's bands and SAM-Flow's mask: the transform, what is given back, what is open, and both editors."""

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, on_two_families

from stableflow.editing import word_maps
from stableflow.editing.bands import analysis, with_details
from stableflow.editing.methods import sam_flow
from stableflow.editing.softening import Softened, softened
from stableflow.editing.wishes import Edit
from stableflow.errors import StableFlowError


def gap(first, second):
    return float((first - second).abs().max())


@pytest.mark.parametrize("length", [4, 8, 12, 32])
def test_the_transform_is_orthogonal(length):
    rows = analysis(length)
    assert gap(rows @ rows.T, torch.eye(length, dtype=rows.dtype)) <= 1e-12


def test_details_go_and_the_rest_stays():
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.randn(2, 3, 48, 40, generator=generator, dtype=torch.float64) for _ in range(2))
    everywhere = torch.ones(2, 1, 48, 40, dtype=torch.float64)
    for levels in (1, 2, 3):
        assert gap(with_details(own, other, 0 * everywhere, levels), own) <= 1e-12
        assert gap(with_details(own, own, 2.5 * everywhere, levels), own) <= 1e-12
        flat = with_details(own, torch.full_like(own, 7.0), everywhere, levels)
        assert gap(flat, with_details(own, torch.zeros_like(own), everywhere, levels)) <= 1e-12, "a constant has none"
        assert float(flat.var()) < float(own.var()) / 2
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n for n in (48, 40)), indexing="ij")
    smooth = (1 + x - 2 * x**2 + 3 * x**3 * y - y**3).expand_as(own)
    inner = (..., slice(8, -8), slice(8, -8))
    cubic, none = (with_details(own, o, everywhere, 1)[inner] for o in (smooth, torch.zeros_like(own)))
    assert gap(cubic, none) <= 1e-12, "four vanishing moments: a cubic has no details"


@on_two_families
def test_what_is_given_back_at_once_was_never_taken(family):
    """With back=1 every step is re-prompting's; with more, the steps of a round differ and its end need not."""
    editor, source = made("freqedit", family, share=1.0, back=1, guidance_scale=1.0)
    model, z = editor.model, source.noise
    for t0, t1 in source.grid.steps():
        v = model.velocity(z, t0, model.encode_prompt(EDITS[:1]), guidance_scale=1.0)
        z = z + (t1 - t0) * v
    assert gap(editor.edit(source, EDITS[0]).latents * source.fingerprint.nudge_scale, z) <= 1e-4
    seen = []
    editor.edit(source, EDITS[0], back=2, callback=seen.append)
    first, told = seen[0], model.encode_prompt(EDITS[:1])
    v = model.velocity(first.previous, first.t0, told, guidance_scale=1.0)
    towards = (first.previous - source.path.at(0.0)) / first.t0
    details = with_details(v, towards, editor.amounts(v, towards), 2)
    assert gap(first.latents, first.previous + (first.t1 - first.t0) * details) <= 1e-5 < gap(details, v)


def test_a_mask_has_a_core_a_ring_around_it_and_stays_open():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    near = torch.exp(-((y - 9) ** 2 + (x - 10) ** 2) / 12)[None, None]
    early, late = softened(near, 0.0), softened(near, 0.9)
    for mask in (early, late):
        assert float(mask.weight.min()) >= 0 and float(mask.weight.max()) == 1.0
        assert torch.equal(mask.weight[mask.core == 1], torch.ones(int(mask.core.sum())))
        assert mask.core[0, 0, 9, 10] == 1 and float((mask.core * mask.ring).max()) == 0.0
    assert late.weight[0, 0, 0, 0] < 0.2 and float(late.ring.sum()) > 0
    both = early | late
    assert bool((both.weight >= early.weight).all()) and bool((both.core >= late.core).all())
    assert softened(torch.zeros(1, 1, 8, 8), 1.0).core.sum() == 0, "nothing changes where no word does"


@on_two_families
def test_open_everywhere_it_is_flowedit(family, monkeypatch):
    settings = {"num_steps": 5, "n_max": 4, "n_avg": 2, "seed": 3}
    editor, source = made("sam-flow", family, target_guidance_scale=5.5, **settings)
    plain, _ = made("flowedit", family, **settings)
    own = {"source_guidance_scale": 1.0, "target_guidance_scale": 1.0}
    assert gap(editor.edit(source, SOURCE, **own).latents, source.latents) <= 1e-5
    masked = editor.edit(source, EDITS[0])
    monkeypatch.setattr(word_maps, "AT_ONCE", 5)
    assert gap(editor.edit(source, EDITS[0]).latents, masked.latents) <= 1e-5, "read in parts"
    assert editor.edit(source, EDITS[0]).recipe["nfe"]["edit"] == 8, "reading attention adds no pass"
    whole = torch.ones(1, 1, 1, 1)
    monkeypatch.setattr(sam_flow, "softened", lambda maps, done: Softened(whole, whole, 0 * whole))
    opened = editor.edit(source, EDITS[0]).latents
    assert gap(opened, plain.edit(source, EDITS[0]).latents) <= 1e-5 < gap(opened, masked.latents)


def test_together_each_edit_is_open_where_its_own_words_are():
    editor, source = made("sam-flow", "FLUX.1", num_steps=4, n_max=3, n_avg=1, seed=1)
    wishes = [Edit(EDITS[0], "box:0,0,8,16"), Edit(EDITS[1], "box:8,0,8,16")]
    fused = editor.edit(source, wishes, together=True).latents
    half = fused.shape[-1] // 2
    apart = (fused - source.latents).abs()
    assert min(float(apart[..., :half].max()), float(apart[..., half:].max())) > 1e-3
    assert torch.equal(fused, editor.edit(source, wishes, together=True).latents)


def test_words_that_stay():
    editor, source = made("sam-flow", "FLUX.1", num_steps=4, n_max=3, n_avg=1, seed=1)
    kept, other = (editor.edit(source, EDITS[0], stay=stay).latents for stay in (["dog"], ["red"]))
    assert gap(kept, other) > 1e-4
    with pytest.raises(StableFlowError, match="word that the model reads"):
        editor.edit(source, EDITS[0], stay=["car"])


@pytest.mark.parametrize(
    ("name", "settings"),
    [("freqedit", {"share": 0.5}), ("sam-flow", {"num_steps": 6, "n_max": 5, "n_avg": 1})],
)
@on_two_families
def test_end_to_end(family, name, settings):
    check_end_to_end(name, family, **settings)
