"""Every editor with a region: what lies outside is the file's own, or the source's path, whatever the method does."""

import json

import numpy as np
import pytest
import torch
from quick import ALL, EDITS, PROMPT, WITHIN, drawn, gap, make, smooth, taken, write_picture
from tiny_flux import SIZE

from stableflow.editing import EDITORS
from stableflow.editing.run import SEAM, Run
from stableflow.editing.where import REGIONS, check_where, describe
from stableflow.editing.wishes import Edit
from stableflow.errors import InputError, StableFlowError, UnknownNameError
from stableflow.exact import read_file_picture
from stableflow.images import to_pil
from stableflow.region import Region

TOKEN = 4  # pixels of a token of this model
PAIR = EDITS[:2]


def channels(file):
    picture = read_file_picture(file)
    return picture.colours, picture.alpha


@pytest.mark.parametrize("name", WITHIN)
@pytest.mark.parametrize("kind", ["png", "jpeg", "deep", "rgba"])
@pytest.mark.parametrize("size", ["reduced", "padded"])
def test_outside_the_region_a_saved_edit_has_the_files_own_numbers(model, tmp_path, name, kind, size):
    """37 x 53 pixels, reduced to 11 x 16 or worked on at 18 x 22, both padded to whole tokens."""
    file = write_picture(tmp_path, kind, 37, 53)
    editor = make(name, model)
    source = taken(editor, file, **({} if size == "reduced" else {"height": 18, "width": 22}))
    height, width = source.images.shape[-2:]
    assert (height % TOKEN, width % TOKEN) != (0, 0), "the picture is padded"
    region = Region.box(0, 0, 6, height, (height, width))
    result = editor.edit(source, PAIR, region=region)
    result.save(tmp_path / "o", original=file)
    colours, alpha = channels(file)
    far = np.ceil((6 + SEAM + 1) * 53 / width).astype(int)  # where the box and its seam are over, in the file's pixels
    for row in (1, 2):
        edited, opacity = channels(tmp_path / "o" / f"edit_{row}.png")
        assert edited.dtype == colours.dtype and edited.shape == colours.shape
        assert np.array_equal(edited[:, far:], colours[:, far:])
        assert (alpha is None and opacity is None) or np.array_equal(opacity, alpha)
        inside = edited[:, :3].astype(float) - colours[:, :3]
        assert np.abs(inside).max() > 0.02 * np.iinfo(colours.dtype).max, "and inside it is another picture"


@pytest.mark.parametrize("name", WITHIN)
@pytest.mark.parametrize("real", [True, False])
def test_outside_the_region_images_and_latents_are_the_sources(model, name, real):
    editor = make(name, model)
    source = taken(editor, torch.tensor(smooth(18, 22)).permute(2, 0, 1).float()) if real else drawn(editor)
    height, width = source.images.shape[-2:]
    region = Region.box(width // 2, 0, width - width // 2, height, (height, width))
    exact = editor.edit(source, PAIR, region=region)
    held = editor.edit(source, PAIR, region=region, exact=False)
    assert torch.equal(exact.latents, held.latents)
    given = source.images if source.given is None else source.given
    outside = (region.feather(SEAM).amount == 0).expand(3, -1, -1)
    assert outside.any() and all(torch.equal(image[outside], given[0][outside]) for image in exact.images)
    made = source.fingerprint
    whole = region.padded((made.height, made.width)).whole(TOKEN).latents(tuple(source.latents.shape[-2:]))
    away = (whole[0] == 0).expand(source.latents.shape[1], -1, -1)
    for row in held.latents:
        assert away.any() and gap(row[away], source.latents[0][away]) <= 1e-6
        assert gap(row[~away], source.latents[0][~away]) > 1e-2
    assert held.region is None and not torch.equal(held.images, exact.images)


@pytest.mark.parametrize("name", [name for name in WITHIN if EDITORS[name].looks_for is None])
def test_no_region_and_the_whole_picture_are_the_same_edit_where_nothing_is_held(model, name):
    editor = make(name, model, **({"policy": "free"} if name == "stable-flow" else {}))
    source = drawn(editor)
    everywhere = Region.everywhere((SIZE, SIZE))
    assert torch.equal(editor.edit(source, PAIR, region=everywhere).latents, editor.edit(source, PAIR).latents)
    nowhere = editor.edit(source, PAIR, region=Region.nowhere((SIZE, SIZE)))
    assert torch.equal(nowhere.images, source.images.expand(2, -1, -1, -1))


def rounding(latents):
    """What float32 leaves after a few passes, of the largest value: random weights drive some methods' beyond 20."""
    return 2e-6 * max(5.0, float(latents.abs().max()))


@pytest.mark.parametrize("name", ALL)
def test_every_edit_may_have_a_region_of_its_own(model, name):
    editor = make(name, model)
    source = drawn(editor)
    left, right = Region.box(0, 0, 8, SIZE, (SIZE, SIZE)), Region.box(8, 0, 8, SIZE, (SIZE, SIZE))
    both = editor.edit(source, [Edit(EDITS[0], region=left), Edit(EDITS[1])], region=right)
    alone = [editor.edit(source, prompt, region=where) for prompt, where in zip(EDITS, (left, right))]
    for row, single in enumerate(alone):
        assert gap(both.latents[row], single.latents[0]) <= rounding(single.latents)
    mixed = editor.edit(source, [Edit(EDITS[0], region="box:0,0,8,16"), EDITS[1]])
    assert gap(mixed.latents[1], alone[1].latents[0]) > 1e-3, "an edit without a region acts everywhere"
    assert gap(mixed.latents[0], alone[0].latents[0]) <= rounding(alone[0].latents)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("name", ["stable-flow", "reprompt"])
def test_shared_and_recorded_sources_give_one_edit(model, name, real):
    results = []
    for memory in ("share", "device", "cpu") if name == "stable-flow" else ("", ""):
        editor = make(name, model, **({"kv_memory": memory} if memory else {}))
        source = taken(editor, torch.tensor(smooth(16, 16)).permute(2, 0, 1).float()) if real else drawn(editor)
        results.append(editor.edit(source, PAIR, region="box:0,0,8,16", strength=0.6 if real else None))
    assert all(gap(results[0].latents, other.latents) <= 1e-5 for other in results[1:])


def found(model, where, prompts=EDITS[0]):
    editor = make("sdedit", model)
    return Run(editor, drawn(editor), prompts, region=where).region


def test_descriptions_say_what_regions_are(model, tmp_path):
    size = (SIZE, SIZE)
    box = Region.box(2, 1, 5, 7, size)
    assert found(model, "box:2,1,5,7") == box == found(model, box) == found(model, lambda run: box)
    assert found(model, "~box:2,1,5,7") == ~box
    corners = [(1.0, 1.0), (12.0, 2.0), (6.0, 14.0)]
    assert found(model, "polygon:1,1,12,2,6,14") == Region.polygon(corners, size)
    assert found(model, "points:3,4,5,10,11") == Region.points([(4, 5), (10, 11)], 3, size)
    to_pil(box.amount.expand(3, -1, -1)).save(tmp_path / "mask.png")
    assert found(model, f"mask:{tmp_path / 'mask.png'}") == box == ~found(model, f"~mask:{tmp_path / 'mask.png'}")
    soft = box.feather(2)
    assert found(model, describe(soft)) == soft


@pytest.mark.parametrize("where", ["word:dog", "word:red dog", "change", "foreground", "~word:dog"])
def test_regions_that_the_model_finds_repeat_themselves_and_stand_in_the_recipe(model, where):
    editor = make("sdedit", model)
    source = drawn(editor)
    first, second = editor.edit(source, PAIR, region=where), editor.edit(source, PAIR, region=where)
    assert torch.equal(first.latents, second.latents)
    region = found(model, where, PAIR)
    assert 0 < region.share() < 1 and set(region.amount.unique().tolist()) == {0.0, 1.0}
    assert region.whole(TOKEN) == region, "of whole tokens"
    assert found(model, json.loads(json.dumps(first.recipe))["region"], PAIR) == region
    assert first.recipe["nfe"]["edit"] > editor.edit(source, PAIR).recipe["nfe"]["edit"], "what finding costs counts"


def test_a_change_has_a_region_for_every_edit_and_a_word_one_for_all(model):
    change = found(model, "change", PAIR)
    assert len(change) == 2 and not torch.equal(change.amount[0], change.amount[1])
    assert len(found(model, "word:dog", PAIR)) == 2 and torch.equal(*found(model, "word:dog", PAIR).amount)


@pytest.mark.parametrize(
    "where",
    [
        "", "box", "box:", "box:1,2,3", "box:1,2,3,4,5", "box:a,b,c,d", "box:nan,0,4,4",
        "box:inf,0,4,4", "box:0,0,1e400,4",
        "box:0.5,0,4,4", "box:0,0,17,4", "box:-1,0,4,4", "box:0,0,0,4", "polygon:1,1,2,2", "polygon:1,1,9,9,3",
        "polygon:nan,1,2,3,4,5", "polygon:inf,1,2,3,4,5", "polygon:1e300,1,2,3,4,5", "polygon:90,90,91,92,93,95",
        "points:3", "points:3,1", "points:-1,2,2", "points:nan,2,2", "points:inf,2,2", "points:2,99,2",
        "points:2,nan,2",
        "word:", "word:horse", "word: ", "wrod:dog", "~", "~~box:0,0,4,4", "mask:", "mask:nothing.png", "mask:.",
        "mask:\0", "change:dog", "foreground:dog", "amount:", "amount:1x2", "amount:1x16x16:", "amount:1x16x16:!!!!",
        "amount:99999x99999x99999:eJw=", "amount:-1x-16x16:eJw=", "amount:1x16x16:eJwDAAAAAAE=", "amount:axbxc:eJw=",
    ],
)  # fmt: skip
def test_a_wrong_description_is_one_error(model, where):
    with pytest.raises(StableFlowError) as caught:
        found(model, where)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("where", [7, b"box:0,0,4,4", ["box:0,0,4,4"], {"box": 1}, torch.ones(1, 16, 16), True])
def test_what_is_no_region_is_refused(model, where):
    with pytest.raises(InputError, match="region must be a Region"):
        found(model, where)


@pytest.mark.parametrize("answer", [None, "box:0,0,4,4", torch.ones(1, 16, 16)])
def test_a_function_that_finds_no_region_is_refused(model, answer):
    with pytest.raises(InputError, match="must return a Region"):
        found(model, lambda run: answer)


def test_a_region_of_another_aspect_is_refused(model):
    with pytest.raises(InputError, match="another aspect"):
        found(model, Region.everywhere((SIZE, 2 * SIZE)))
    assert found(model, Region.box(0, 0, 20, 40, (40, 40))).share() == 0.5, "another size of one aspect is fitted"


def test_what_can_be_known_without_a_picture_is_checked_before_it(tmp_path):
    check_where("box:0,0,4,4")
    with pytest.raises(UnknownNameError, match="Did you mean 'word'"):
        check_where("wrod:cat")
    with pytest.raises(StableFlowError, match="There is no file"):
        check_where(f"~mask:{tmp_path / 'none.png'}")


def test_every_kind_says_how_it_is_written():
    assert set(REGIONS) == {
        "amount",
        "mask",
        "box",
        "polygon",
        "points",
        "word",
        "change",
        "foreground",
        "keep",
        "lost",
        "kept",
        "rewritten",
        "shape",
    }
    assert all(REGIONS[kind].__doc__ for kind in REGIONS)


def test_callables_see_the_run(model):
    seen = []

    def left(run):
        seen.append((run.source.fingerprint.prompt, run.edits.prompts))
        return Region.box(0, 0, 8, SIZE, run.source.images.shape[-2:])

    assert found(model, left, EDITS[0]).share() == 0.5 and seen == [(PROMPT, (EDITS[0],))]
