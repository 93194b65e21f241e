"""Regions: their algebra, their sizes, and that pixels, latents and tokens agree."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import stableflow as sf
from stableflow.errors import InputError
from stableflow.region import Region

SIDES = st.integers(1, 24)
MANY = settings(max_examples=60, deadline=None)


@st.composite
def amounts(draw, height=None, width=None, rows=None):
    """Maps with hard and soft parts: noise, boxes, and all of one value."""
    shape = rows or draw(st.integers(1, 3)), height or draw(SIDES), width or draw(SIDES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    noise = torch.rand(shape, generator=generator)
    kind = draw(st.sampled_from(["soft", "hard", "box", "empty", "full"]))
    if kind == "box":
        y, x = draw(st.integers(0, shape[1] - 1)), draw(st.integers(0, shape[2] - 1))
        noise = torch.zeros(shape)
        noise[:, y : y + draw(SIDES), x : x + draw(SIDES)] = 1
    return {"soft": noise, "hard": (noise > 0.6).float(), "empty": noise * 0, "full": noise * 0 + 1}.get(kind, noise)


@st.composite
def regions(draw, **size):
    return Region(draw(amounts(**size)))


@st.composite
def pairs(draw):
    height, width = draw(SIDES), draw(SIDES)
    rows = draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (3, 3)]))
    return tuple(draw(regions(height=height, width=width, rows=n)) for n in rows)


@MANY
@given(pairs())
def test_fuzzy_sets(pair):
    """All of these hold to the last bit."""
    a, b = pair
    assert ~~a == a and hash(~~a) == hash(a) and a & a == a == a | a
    assert ~(a & b) == ~a | ~b and ~(a | b) == ~a & ~b
    assert a & b == b & a and a | b == b | a and len(a & b) == max(len(a), len(b))
    size = a.size
    assert a & Region.everywhere(size) == a == a | Region.nowhere(size)
    assert ~Region.everywhere(size) == Region.nowhere(size)


@MANY
@given(regions(), st.integers(0, 30))
def test_feather_reaches_so_far_and_no_further(region, pixels):
    soft = region.feather(pixels)
    assert bool((soft.amount[region.grow(pixels).amount == 0] == 0).all())
    assert bool((soft.amount[region.grow(-pixels).amount == 1] == 1).all())
    assert soft.amount.min() >= region.amount.min() and soft.amount.max() <= region.amount.max()
    assert ~(~region).feather(pixels) == soft
    assert region.feather(0) == region


@MANY
@given(pairs(), st.integers(0, 30))
def test_feather_and_grow_keep_order(pair, pixels):
    less, more = pair[0] & pair[1], pair[1] | pair[0]
    assert bool((less.feather(pixels).amount <= more.feather(pixels).amount).all())
    assert bool((less.grow(pixels).amount <= more.grow(pixels).amount).all())


def test_feather_is_a_ramp_across_an_edge():
    edge = Region.box(0, 0, 10, 4, size=(4, 20)).feather(2)
    assert torch.allclose(edge.amount[0, 2, 7:13], torch.tensor([1, 8 / 9, 6 / 9, 3 / 9, 1 / 9, 0]))
    assert edge.amount[0, 0, 0] == 1, "the border of the picture is no edge"


@MANY
@given(regions(), st.integers(0, 8), st.integers(0, 8))
def test_grow(region, a, b):
    assert region.grow(a).grow(b) == region.grow(a + b) and region.grow(-a).grow(-b) == region.grow(-a - b)
    assert region.grow(0) == region
    assert bool((region.grow(-a).amount <= region.amount).all() and (region.amount <= region.grow(a).amount).all())
    assert bool((region.grow(a).grow(-a).amount >= region.amount).all()), "closing fills"


def test_grow_by_pixels():
    assert Region.box(3, 4, 2, 1, size=(10, 12)).grow(2) == Region.box(1, 2, 6, 5, size=(10, 12))
    assert Region.box(1, 2, 6, 5, size=(10, 12)).grow(-2) == Region.box(3, 4, 2, 1, size=(10, 12))


@MANY
@given(regions(), st.integers(-30, 30), st.integers(-30, 30))
def test_moving_there_and_back_loses_only_what_left_the_picture(region, dx, dy):
    back = region.moved(dx, dy).moved(-dx, -dy)
    stays = Region.everywhere(region.size).moved(-dx, -dy)
    assert back == region & stays
    if len(region) == 1 and region.bounds() and abs(dx) < region.size[1] and abs(dy) < region.size[0]:
        x, y = (index[0].item() for index in (region.amount[0] > 0).nonzero().flip(1).split(1, dim=1))
        if 0 <= x + dx < region.size[1] and 0 <= y + dy < region.size[0]:
            assert region.moved(dx, dy).amount[0, y + dy, x + dx] == region.amount[0, y, x]


@MANY
@given(st.data(), st.integers(1, 5), st.integers(1, 5), st.sampled_from([2, 8, 16]))
def test_pixels_latents_and_tokens_agree(data, rows, columns, side):
    region = data.draw(regions(height=rows * side, width=columns * side))
    tokens = region.tokens((rows, columns))
    latents = region.latents((rows * 2, columns * 2))
    assert tokens.shape == (len(region), rows * columns, 1) and latents.shape[1:] == (1, 2 * rows, 2 * columns)
    for coarse in (tokens, latents):
        assert torch.allclose(coarse.flatten(1).mean(1), region.amount.flatten(1).mean(1), atol=1e-6)
    assert torch.allclose(Region(latents[:, 0]).tokens((rows, columns)), tokens, atol=1e-6)
    whole = region.whole(side)
    assert bool((whole.amount >= region.amount).all())
    assert torch.equal(whole.tokens((rows, columns)), region.tokens((rows, columns), "any"))
    assert torch.equal((~whole).tokens((rows, columns)), 1 - region.tokens((rows, columns), "any"))


def test_tokens_go_row_by_row():
    corner = Region.box(32, 0, 16, 16, size=(32, 48))
    assert corner.tokens((2, 3)).flatten().tolist() == [0, 0, 1, 0, 0, 0]
    assert Region.box(0, 0, 8, 16, size=(32, 48)).tokens((2, 3))[0, 0, 0] == 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_grids_of_every_family(name):
    """A token stands for pixel_multiple x pixel_multiple pixels in all of them, square picture or not."""
    model = sf.wrap(FAMILIES[name].make(), name="x")
    multiple = model.pixel_multiple
    layouts = []

    class Watch:
        def hooks(self, layers):
            from stableflow.models.base import ProjectionHook

            return [ProjectionHook(layers[0], "key", lambda forward, rows: layouts.append(forward.layout))]

    height, width = (2 * multiple, 3 * multiple) if _takes(model, 2 * multiple, 3 * multiple) else model.default_size
    latents = torch.zeros(1, *model.latent_shape(height, width))
    guidance = model.default_guidance_scale
    with torch.no_grad(), model.attach(Watch()):
        model.velocity(latents, 0.5, model.encode_prompt(["a dog"]), guidance_scale=guidance)
    grid = layouts[0].image_rows, layouts[0].image_columns
    assert grid == (height // multiple, width // multiple)
    content = Region.box(0, 0, width - 5, height - 3, size=(height - 3, width - 5))
    region = content.padded((height, width))
    assert region.tokens(grid).flatten()[0] == 1 and region.tokens(grid).flatten()[-1] < 1
    assert region.latents(latents.shape[-2:]).mean().item() == pytest.approx(region.share(), abs=1e-6)


def _takes(model, height, width):
    try:
        model.check_size(height, width)
    except InputError:
        return False
    return True


@MANY
@given(st.data(), SIDES, SIDES)
def test_padding_lies_outside_and_is_cut_off_again(data, more_height, more_width):
    region = data.draw(regions())
    size = region.size[0] + more_height, region.size[1] + more_width
    padded = region.padded(size)
    assert padded.cropped(region.size) == region and padded.bounds() == region.bounds()
    assert region.fitted(region.size, size) == padded
    with pytest.raises(InputError, match="cannot be padded"):
        padded.padded(region.size)
    with pytest.raises(InputError, match="cannot be cut"):
        region.cropped(size)


@MANY
@given(st.data(), SIDES, SIDES)
def test_resizing(data, height, width):
    region = data.draw(regions())
    resized = region.resized((height, width))
    assert resized.size == (height, width) and region.resized(region.size) == region
    assert resized.amount.min() >= region.amount.min() and resized.amount.max() <= region.amount.max()


def test_a_region_at_work_is_resized_and_padded_as_its_picture():
    picture = sf.images.prepare(torch.rand(3, 60, 100), multiple=16, max_side=50)
    region = Region.box(50, 0, 50, 60, size=(60, 100)).fitted(picture.content_size, picture.pixels.shape[-2:])
    assert picture.content_size == (30, 50) and region.size == (32, 64)
    assert region.bounds()[2:] == (26, 30) and region.amount[0, 5, 30:50].min() == 1, "half a pixel of antialiasing"
    with pytest.raises(InputError, match="another aspect"):
        Region.everywhere((100, 60)).fitted(picture.content_size)


@MANY
@given(st.data())
def test_outside_the_composite_is_the_given_picture_bit_for_bit(data):
    region = data.draw(regions())
    height, width = region.size
    given = torch.rand(1, 3, height, width)
    edited = torch.rand(len(region), 3, height, width)
    edited[0, 0, 0, 0] = float("nan") if region.amount[0, 0, 0] == 0 else 0.5  # outside it must not even be read
    mixed = region.composite(given, edited)
    amount = region.amount[:, None].expand_as(mixed)
    assert torch.equal(mixed[amount == 0], given.expand_as(mixed)[amount == 0])
    assert torch.equal(mixed[amount == 1], edited[amount == 1])
    between = (amount > 0) & (amount < 1)
    expected = given + amount * (edited - given)
    assert torch.allclose(mixed[between], expected[between], atol=1e-6)


def test_one_region_for_many_rows():
    region, given, edited = Region.box(0, 0, 2, 2, size=(4, 4)), torch.rand(1, 3, 4, 4), torch.rand(5, 3, 4, 4)
    mixed = region.composite(given, edited)
    assert torch.equal(mixed[:, :, :2, :2], edited[:, :, :2, :2]) and torch.equal(mixed[3, :, 2:], given[0, :, 2:])
    with pytest.raises(InputError, match="Region.cropped"):
        region.padded((8, 8)).composite(given, edited)


def test_bounds_share_row_and_digest():
    region = Region.box(3, 1, 4, 2, size=(8, 16))
    assert region.bounds() == (3, 1, 4, 2) and region.share() == 8 / 128 and Region.nowhere((8, 16)).bounds() is None
    both = Region(torch.cat([region.amount, (~region).amount]))
    assert both.row(1) == ~region and region.row(7) == region and len(both) == 2
    digests = {r.digest() for r in (region, ~region, both, Region.nowhere((8, 16)), Region.nowhere((16, 8)))}
    assert len(digests) == 5 and Region.box(3, 1, 4, 2, size=(8, 16)).digest() == region.digest()


def test_polygons_and_points():
    triangle = Region.polygon([(2, 2), (12, 2), (2, 12)], size=(16, 20))
    assert triangle.bounds() == (2, 2, 11, 11) and triangle.amount[0, 4, 4] == 1 and triangle.amount[0, 11, 11] == 0
    assert Region.polygon([(-5, -5), (30, -5), (30, 30), (-5, 30)], size=(16, 20)) == Region.everywhere((16, 20))
    disc = Region.points([(5, 6)], 2, size=(16, 20))
    assert disc.bounds() == (3, 4, 5, 5) and disc.amount.sum() == 13
    assert Region.points([(5, 6), (15, 6)], 2, size=(16, 20)).amount.sum() == 26


MASK = np.zeros((16, 24), bool)
MASK[4:8, 6:20] = True


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        torch.from_numpy(MASK),
        MASK[None],
        MASK.astype(np.uint8) * 255,
        MASK.astype(np.uint16) * 65535,
        MASK.astype(np.float64),
        torch.from_numpy(MASK).to(torch.bfloat16),
        torch.from_numpy(MASK).byte() * 255,
    ],
    ids=lambda mask: f"{type(mask).__name__}-{mask.dtype}",
)
def test_masks_of_arrays(mask):
    assert Region.from_mask(mask) == Region.box(6, 4, 14, 4, size=(16, 24))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "RGBA", "LA", "opaque RGBA"])
@pytest.mark.parametrize("from_file", [False, True])
def test_masks_of_pictures(tmp_path, mode, from_file):
    grey = Image.fromarray(MASK.astype(np.uint8) * 255)
    if mode in ("RGBA", "LA"):  # colours that the opacity must outweigh
        image = Image.effect_noise(grey.size, 50).convert(mode)
        image.putalpha(grey)
    elif mode == "I;16":
        image = Image.fromarray(MASK.astype(np.uint16) * 65535)
    else:
        image = grey.convert(mode.removeprefix("opaque "))
    if from_file:
        image.save(tmp_path / "mask.png")
        image = tmp_path / "mask.png"
    assert Region.from_mask(image) == Region.box(6, 4, 14, 4, size=(16, 24))


def test_sixteen_bits_are_read_as_such(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "mask.png")
    assert Region.from_mask(tmp_path / "mask.png").amount[0, 0, 0].item() == pytest.approx(32768 / 65535, abs=1e-7)


def test_a_mask_is_turned_as_its_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(MASK.astype(np.uint8) * 255).save(tmp_path / "mask.png", exif=exif)
    assert Region.from_mask(tmp_path / "mask.png").size == (24, 16)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), 2.0), "mask: the float64 array holds 2 to 2"),
        (np.full((4, 4), np.nan), "mask: the float64 array holds nan"),
        (torch.full((4, 4), -1.0), "mask: the float32 array holds -1"),
        (np.ones((4, 4), np.int64), "mask: the int64 array is none of bool, uint8"),
        (np.eye(4, dtype=np.uint8), "holds 0 and 1 only, where 255"),
        (np.zeros(4), "mask: the float64 array has shape"),
        (np.zeros((0, 4)), "mask: the float64 array has shape"),
        (Image.new("F", (4, 4)), "mask: the picture is of mode F"),
        (Image.new("CMYK", (4, 4)), "mask: the picture is of mode CMYK"),
        (Image.new("RGB", (4, 4), "red"), "mask: the picture is in colours and opaque"),
        ("no-such-file.png", "There is no file"),
    ],
)
def test_masks_that_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        Region.from_mask(mask)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Region(torch.full((1, 2, 2), 1.5)), r"lies in \[0, 1\], got 1.5 to 1.5"),
        (lambda: Region(torch.tensor([[[0.5, float("nan")]]])), "got nan to nan"),
        (lambda: Region(torch.zeros(1, 0, 2)), r"got torch.float32 \(1, 0, 2\)"),
        (lambda: Region.box(0, 0, 30, 2, size=(8, 16)), "does not lie in the picture of 16x8"),
        (lambda: Region.box(-1, 0, 3, 2, size=(8, 16)), "does not lie in the picture"),
        (lambda: Region.box(0, 0, 0, 2, size=(8, 16)), "does not lie in the picture"),
        (lambda: Region.polygon([(0, 0), (1, 1)], size=(8, 16)), "three points"),
        (lambda: Region.polygon([(50, 50), (60, 50), (60, 60)], size=(8, 16)), "holds no pixel"),
        (lambda: Region.points([(16, 0)], 2, size=(8, 16)), r"points must be pixels .* got \[\(16.0, 0.0\)\]"),
        (lambda: Region.points([], 2, size=(8, 16)), "at least one"),
        (lambda: Region.points([(0, 0)], -1, size=(8, 16)), "and -1"),
        (lambda: Region.everywhere((0, 4)), r"height of size"),
        (lambda: Region.everywhere((8, 8)).feather(-1), "pixels of feather must lie"),
        (lambda: Region.everywhere((8, 8)) & Region.everywhere((8, 9)), "do not go together"),
        (lambda: Region(torch.ones(2, 4, 4)) | Region(torch.ones(3, 4, 4)), "do not go together"),
        (lambda: Region.everywhere((8, 9)).tokens((4, 4)), "does not divide into 4 x 4 tokens"),
        (lambda: Region.everywhere((8, 9)).latents((0, 4)), "does not divide into 0 x 4 latent pixels"),
        (lambda: Region.everywhere((8, 9)).whole(4), "squares of 4 pixels"),
    ],
)
def test_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_given_tensor_is_neither_kept_nor_changed():
    amount = torch.full((1, 4, 4), 0.1)
    region = Region(amount)
    region_before = region.digest()
    assert torch.equal(amount, torch.full((1, 4, 4), 0.1))
    amount.zero_()
    assert region.digest() == region_before


def test_overlay():
    grey = Image.new("RGB", (40, 32), (100, 100, 100))
    region = Region.box(8, 8, 16, 16, size=(32, 40)).padded((32, 48))
    shown = np.array(region.overlay(grey))
    assert tuple(shown[0, 0]) == (100, 100, 100) and shown.shape == (32, 40, 3)
    assert shown[12, 12, 0] > 150 > shown[12, 12, 1], "tinted inside"
    assert tuple(shown[7, 12]) == (255, 0, 102) and tuple(shown[5, 12]) == (100, 100, 100), "outlined"
