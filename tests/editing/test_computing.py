"""Edits of a region alone are the edits with every token computed, and what cannot be one is told or refused."""

from functools import cache

import pytest
import torch
from families import FAMILIES
from on_families import EDITS, SOURCE, made, model_of

from stableflow.editing import EDITORS
from stableflow.editing.policy import Hold, Policy
from stableflow.editing.wishes import Edit
from stableflow.errors import InputError
from stableflow.flow.schedule import ALWAYS, Schedule
from stableflow.interventions import KVStore, RecordKV
from stableflow.region import Region

BOX = "box:4,2,6,9"  # of 16 x 16 pixels, 6 of 16 tokens


@cache
def real(name, family="FLUX.1"):
    return made(name, family, **({"layers": "all"} if name == "stable-flow" else {}))


def both(editor, source, wishes, **settings):
    """An edit with every token computed, and with the region's alone."""
    return [editor.edit(source, wishes, compute=compute, **settings) for compute in ("all", "region")]


def assert_same(whole, part, source):
    scale = float(whole.latents.abs().max())
    assert float((whole.latents - part.latents).abs().max()) <= 1e-4 * scale
    assert float((whole.latents - source.latents).abs().max()) > 1e-2, "something is edited"
    found = part.recipe["computed"]
    assert found["image_tokens"] < found["of"] and found["why_all"] is None
    assert part.recipe["nfe"] == whole.recipe["nfe"]


@pytest.mark.parametrize("family", ["FLUX.1", "SD3", "Qwen-Image", "Z-Image"])
def test_a_real_picture_in_several_families(family):
    editor, source = real("stable-flow", family)
    whole, part = both(editor, source, EDITS, region=BOX)
    assert_same(whole, part, source)
    size = source.images.shape[-1]
    inside = Region.box(4, 2, 6, 9, size=(size, size)).whole(editor.model.pixel_multiple)
    outside = inside.latents(source.latents.shape[-2:]).expand_as(part.latents) == 0
    assert torch.equal(part.latents[outside], source.latents.expand_as(part.latents)[outside]), "to the last bit"
    shown = part.region.amount[:, None].expand_as(part.images) == 0
    assert torch.equal(part.images[shown], source.given.expand_as(part.images)[shown])


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_drawn_source_and_a_feathered_region_that_touches_tokens_in_part(solver):
    editor = EDITORS["stable-flow"](model_of("FLUX.1"), layers="all")
    source = editor.generate(SOURCE, seed=1, num_steps=3, solver=solver)
    size = source.images.shape[-1]
    soft = Region.box(5, 6, 3, 2, size=(size, size)).feather(2)
    assert_same(*both(editor, source, EDITS, region=soft), source)


@pytest.mark.parametrize("together", [False, True])
def test_several_edits_with_regions_of_their_own(together):
    editor, source = real("stable-flow")
    wishes = [Edit(EDITS[0], "box:0,0,8,4"), Edit(EDITS[1], "box:8,9,8,6", guidance_scale=2.0)]
    whole, part = both(editor, source, wishes, together=together)
    assert_same(whole, part, source)
    alone = editor.edit(source, wishes[0], compute="region")
    assert alone.recipe["computed"]["image_tokens"] < part.recipe["computed"]["image_tokens"], "the union"


@pytest.mark.parametrize(
    ("name", "settings"), [("stable-flow", {"strength": 0.4}), ("kv-edit", {"fresh": 0.5, "seed": 2})]
)
def test_the_dial_inside_and_new_noise(name, settings):
    editor, source = real(name)
    assert_same(*both(editor, source, EDITS, region=BOX, **settings), source)


def test_auto_takes_it_where_it_is_the_same_and_pays():
    editor, source = real("stable-flow")
    found = editor.edit(source, EDITS, region=BOX).recipe["computed"]
    assert found["why_all"] is None and found["image_tokens"] < found["of"]
    wide = editor.edit(source, EDITS, region="~box:0,0,4,4").recipe["computed"]
    assert wide["image_tokens"] == wide["of"] and "too many to gain" in wide["why_all"]
    assert "computed" not in editor.edit(source, EDITS, region=BOX, strength=0).recipe
    with editor.model.attach(RecordKV([0], KVStore())):  # a watcher sees whole passes
        assert "something else is attached" in editor.edit(source, EDITS, region=BOX).recipe["computed"]["why_all"]


OUTSIDE = Hold("all", where="outside")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"region": None}, "no region"),
        ({"layers": [0, 3]}, "not all layers are held outside"),
        ({"weight": 0.9}, "at full weight"),
        ({"t_window": (0.5, 1.0)}, "at all times"),
        ({"policy": Policy((OUTSIDE,), pin=Schedule.window(0.2, 1.0))}, "not put back"),
        ({"policy": Policy((Hold("all", parts=("key",), where="outside"),), pin=ALWAYS)}, "not all layers are held"),
        ({"region": "box:0,0,16,16"}, "touches 16 of 16"),
    ],
)
def test_another_edit_is_refused_with_the_reason(settings, reason):
    editor, source = real("stable-flow")
    asked = {"region": BOX} | settings
    with pytest.raises(InputError, match=reason):
        editor.edit(source, EDITS, compute="region", **asked)
    recipe = editor.edit(source, EDITS, **asked).recipe
    assert "computed" not in recipe if settings == {"region": None} else reason in recipe["computed"]["why_all"]


def test_a_source_that_shares_the_batch_and_a_solver_between_states_are_refused():
    editor = EDITORS["stable-flow"](model_of("FLUX.1"), layers="all", kv_memory="share")
    with pytest.raises(InputError, match="not kept"):
        editor.edit(editor.generate(SOURCE, seed=1, num_steps=2), EDITS, region=BOX, compute="region")
    editor = EDITORS["stable-flow"](model_of("Z-Image"), layers="all")
    size = FAMILIES["Z-Image"].size
    source = editor.generate(SOURCE, seed=1, num_steps=2, solver="midpoint", height=size, width=size)
    with pytest.raises(InputError, match="before the first layer"):
        editor.edit(source, EDITS, region=BOX, compute="region")


def test_another_attention_kernel_is_told(monkeypatch):
    editor, source = real("stable-flow")
    monkeypatch.setattr(editor.model.layers[1].block.attn.processor, "_attention_backend", "flash")
    with pytest.raises(InputError, match="'flash', which takes no more keys"):
        editor.edit(source, EDITS, region=BOX, compute="region")
