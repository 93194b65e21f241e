"""Moving: what is carried is carried exactly, and nothing else changes."""

import pytest
import torch
from families import FAMILIES
from on_families import SOURCE, model_of, picture

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.editing.collage import paste, read_cells, vacated
from stableflow.editing.making import Recording
from stableflow.editing.methods.move import Moving
from stableflow.editing.moves import make_move
from stableflow.editing.warp import carried, similarity, smooth_warp
from stableflow.errors import InputError, StableFlowError
from stableflow.interventions import InjectKV, KVStore, RecordKV
from stableflow.interventions.blend import Blend
from stableflow.models.base import AttentionHook
from stableflow.region import Region

T = 0.7
on_rotary_families = pytest.mark.parametrize("family", ["FLUX.1", "Qwen-Image", "FLUX.2-klein"])


class Keys:
    """Sees the joint keys of one layer as its kernel gets them, turned to their positions."""

    def __init__(self, layer):
        self.layer, self.image = layer, None

    def hooks(self, layers):
        return [AttentionHook(layers[self.layer], self._see)]

    def _see(self, forward, queries, keys, bias):
        if forward.branch == "conditional":
            self.image = keys[:1, forward.layout.joint_span("image")].clone()


def keys_of(model, latents, words, layer, *interventions):
    seen = Keys(layer)
    with model.attach(*interventions, seen):
        model.velocity(latents, T, words, guidance_scale=1.0)
    return seen.image


def noise_of(model, size, seed):
    return torch.randn(1, *model.latent_shape(size, size), generator=torch.Generator().manual_seed(seed))


def moved_index(side):
    """Tokens of a grid whose right half reads two tokens to its left."""
    index = torch.arange(side * side).view(side, side).clone()
    index[:, side // 2 :] = index[:, side // 2 - 2 : side - 2]
    return index.flatten()


@on_rotary_families
def test_a_carried_key_is_the_key_of_a_token_that_really_is_there(family):
    """In the first layer keys follow from the token alone: moving the latents themselves must give the same ones."""
    model = model_of(family)
    size = 8 * model.pixel_multiple
    words, latents = model.encode_prompt([SOURCE]), noise_of(model, size, 0)
    index, patch = moved_index(8), latents.shape[-1] // 8
    cells = latents.unflatten(2, (8, patch)).unflatten(4, (8, patch)).permute(0, 1, 2, 4, 3, 5).flatten(2, 3)
    moved = cells[:, :, index].unflatten(2, (8, 8)).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)
    assert moved.shape == latents.shape and not torch.equal(moved, latents)
    store = KVStore()
    source = keys_of(model, latents, words, 0, RecordKV([0], store))
    other = noise_of(model, size, 1)
    found = keys_of(model, other, words, 0, InjectKV([0], store, Blend(reads=index)))
    true = keys_of(model, moved, words, 0)
    assert float((found - true).abs().max()) <= 1e-5 * float(true.abs().max())
    assert float((found - source[:, index]).abs().max()) > 1e-2, "keys are turned to where they are read"


@on_rotary_families
def test_carrying_equals_gathering_the_kept_features_by_hand(family):
    """In every layer: a store whose entries were gathered beforehand, injected plainly, is the same pass."""
    model = model_of(family)
    size, layers = 8 * model.pixel_multiple, range(len(model.layers))
    words, index, store, gathered = model.encode_prompt([SOURCE]), moved_index(8), KVStore(), KVStore()
    keys_of(model, noise_of(model, size, 0), words, 0, RecordKV(layers, store))
    for address, kept in store.entries.items():
        gathered.put(address, kept[:, index])
    with model.attach(InjectKV(layers, store, Blend(reads=index))):
        carried_so = model.velocity(noise_of(model, size, 1), T, words, guidance_scale=1.0)
    with model.attach(InjectKV(layers, gathered)):
        by_hand = model.velocity(noise_of(model, size, 1), T, words, guidance_scale=1.0)
    assert float((carried_so - by_hand).abs().max()) <= 1e-5


def prepared(family, **settings):
    model, size = model_of(family), FAMILIES[family].size
    editor = Moving(model, **settings)
    side = model.pixel_multiple
    source = editor.invert(picture(size), SOURCE, num_steps=4, height=size, width=size)
    return editor, source, f"box:0,0,{side},{2 * side}", side


@pytest.mark.parametrize("family", ["FLUX.1", "SD3"])
def test_outside_is_the_picture_and_the_thing_its_own_pixels(family):
    editor, source, thing, side = prepared(family)
    result = sf.move(editor, source, sf.Move(thing, dx=2 * side))
    assert result.recipe["way"] == ("carry" if family == "FLUX.1" else "collage")
    given, image = source.given[0], result.images[0]
    assert torch.equal(image[:, : 2 * side, 2 * side : 3 * side], given[:, : 2 * side, :side])
    changed = (result.region.amount > 0)[0]
    assert not changed.all() and torch.equal(image[:, ~changed], given[:, ~changed])
    assert float((image[:, :side, :side] - given[:, :side, :side]).abs().max()) > 1e-2, "the hole is drawn"
    assert torch.equal(sf.move(editor, source, sf.Move(thing, dx=2 * side)).images, result.images)
    assert result.source.fingerprint == source.fingerprint
    drawn = sf.move(editor, source, sf.Move(thing, dx=2 * side), pasted=False)
    assert not torch.equal(drawn.images, result.images)
    assert torch.equal(sf.move(editor, source, sf.Move(thing, dx=2 * side), strength=0).images, source.given)


def test_a_shared_batch_moves_as_recorded_keys_do(monkeypatch):
    editor, source, thing, side = prepared("FLUX.1", begin=1.0)
    move = sf.Move(thing, dx=2 * side)
    recorded = sf.move(editor, source, move, begin=1.0).latents
    monkeypatch.setattr(Moving, "recording", lambda self: Recording(tuple(range(len(self.model.layers))), "share"))
    again = editor.invert(picture(source.images.shape[-1]), SOURCE, num_steps=4)
    assert again.store is None
    shared = sf.move(editor, again, move, begin=1.0)
    assert shared.recipe["nfe"]["rows"] == 2
    assert float((shared.latents - recorded).abs().max()) <= 1e-4 * float(recorded.abs().max())


def test_a_copy_leaves_no_hole_and_several_moves_lie_on_one_another():
    editor, source, thing, side = prepared("FLUX.1")
    given = source.given
    copied = sf.move(editor, source, sf.Move(thing, dx=side, dy=side, copy=True)).images
    expected = given.clone()
    expected[..., side : 3 * side, side : 2 * side] = given[..., : 2 * side, :side]
    assert torch.equal(copied, expected)
    twice = sf.move(
        editor, source, sf.Move(thing, dx=side, copy=True), sf.Move(f"box:0,{side},{side},{side}", dx=side, copy=True)
    )
    expected = given.clone()
    expected[..., : 2 * side, side : 2 * side] = given[..., : 2 * side, :side]
    assert torch.equal(twice.images, expected)


def test_the_recipe_holds_regions_as_they_were_found():
    editor, source, thing, side = prepared("FLUX.1")
    result = sf.move(editor, source, sf.Move(thing, dx=side, grow=1))
    (move,) = result.recipe["editor"]["moves"]
    assert move["region"].startswith("amount:") and move["dx"] == side and "grow" not in move
    again = EDITORS["move"](editor.model, moves=[move]).edit(source, SOURCE)
    assert torch.equal(again.images, result.images)


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ([], "Nothing is moved"),
        ([{"dx": 3}], "A move is a Move, or has region"),
        ([{"region": "box:0,0,4,4", "up": 3}], "A move is a Move, or has region"),
        ([{"region": "box:0,0,4,4", "scale": 0.0}], "scale must"),
        ([{"region": "box:0,0,4,4", "dx": 1, "drag": [[[0, 0], [1, 1]]]}], "takes a drag, or dx"),
        ([{"region": "box:0,0,4,4", "drag": [[[0, 0], [1, 1]], [[0, 0], [2, 1]]]}], "from one pixel"),
        ([{"region": "bax:0,0,4,4"}], "Unknown kind of region"),
    ],
)
def test_moves_that_say_nothing_clear_are_refused(moves, message):
    editor, source, *_ = prepared("FLUX.1")
    with pytest.raises(StableFlowError, match=message):
        Moving(editor.model, moves=moves).edit(source, SOURCE)


def test_what_cannot_be_carried_says_why():
    editor, source, thing, side = prepared("FLUX.1", way="carry")
    for how, why in [({"dx": 0.5 * side}, "no multiple of a token"), ({"scale": 1.5}, "resized, turned or bent")]:
        with pytest.raises(InputError, match=why):
            sf.move(editor, source, sf.Move(thing, **how), way="carry")
    editor, source, thing, side = prepared("SD3")
    with pytest.raises(InputError, match="positions of SD3 are within its keys"):
        sf.move(editor, source, sf.Move(thing, dx=side), way="carry")


def test_origins_lead_back_to_where_content_was():
    """By hand: (3, 2) about (2, 2), a quarter clockwise (y is down) and doubled, comes to (2, 4); then shifted."""
    origin = similarity((2.0, 2.0), (5.0, -1.0), 2.0, 90.0)
    assert torch.allclose(origin(torch.tensor([[7.0, 3.0]])), torch.tensor([[3.0, 2.0]]).double())
    came = [(1.0, 1.0), (8.0, 2.0), (3.0, 9.0), (7.0, 7.0)]
    went = [(2.0, 1.5), (9.0, 1.0), (3.0, 7.0), (8.0, 9.0)]
    for count in (1, 2, 3, 4):
        warp = smooth_warp(list(zip(came, went))[:count])
        assert torch.allclose(warp(torch.tensor(went[:count])), torch.tensor(came[:count]).double(), atol=1e-9)
    line = smooth_warp([((0.0, 0.0), (1.0, 0.0)), ((2.0, 0.0), (3.0, 0.0)), ((4.0, 0.0), (5.0, 0.0))])
    assert torch.allclose(line(torch.tensor([[2.0, 0.0]])), torch.tensor([[1.0, 0.0]]).double(), atol=1e-6)


def test_whole_pixels_are_copied_and_cells_read_where_things_came_from():
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(carried(pixels, similarity((3, 4), (2, 1)))[..., 1:, 2:], pixels[..., :-1, :-2])
    thing = Region.box(1, 1, 3, 2, size=(8, 8))
    moves = [make_move({"region": "box:1,1,3,2", "dx": 4})]
    index = read_cells([thing], moves, (4, 4), 2).view(4, 4)
    expected = torch.arange(16).view(4, 4).clone()
    expected[:2, 2:] = expected[:2, :2]
    assert torch.equal(index, expected)
    assert torch.equal(vacated([thing], moves, (4, 4), 2)[:2], torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]]))
    collage = paste(pixels, [thing], moves)
    assert torch.equal(collage.pixels[..., 1:3, 5:8], pixels[..., 1:3, 1:4])
    assert float((collage.hole.amount * collage.placed.amount).max()) == 0
