"""Edits in their files: outside the region every number is the file's, whatever the format, depth and size."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stableflow.errors import ImageError, InputError
from stableflow.exact import FilePicture, put_back, read_file_picture
from stableflow.images import prepare, read_recipe
from stableflow.region import Region

HEIGHT, WIDTH = 60, 90
RANDOM = np.random.default_rng(5)
DEEP = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)
FLAT = (DEEP >> 8).astype(np.uint8)


def paeth(a, b, c):
    return min((a, b, c), key=lambda value: abs(a + b - c - value))  # of equal ones the first, as the standard has it


def write_png(path, pixels, *, filters=(0, 1, 2, 3, 4), extra=()):
    """Write a 16-bit PNG by the standard, with every filter in turn; slow and simple, for small pictures."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, lines = 2 * channels, []
    for y, row in enumerate(rows):
        kind = filters[y % len(filters)]
        up = rows[y - 1] if y else np.zeros_like(row)
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), up[:-step]])
        guess = {0: 0 * row, 1: left, 2: up, 3: (left + up) // 2}.get(kind)
        if guess is None:
            guess = np.array([paeth(a, b, c) for a, b, c in zip(left, up, corner)])
        lines.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    )
    return path


def decode_png(path):
    """Return a PNG's (bit depth, samples), by the standard and without Pillow."""
    data, at, body = path.read_bytes(), 8, b""
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + chunk)
        if name == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", chunk[:10])
        body += chunk if name == b"IDAT" else b""
        at += length + 12
    step = {2: 3, 6: 4}[colour] * depth // 8
    raw = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * step).astype(int)
    rows = np.zeros((height, width * step), int)
    for y, (kind, row) in enumerate(zip(raw[:, 0], raw[:, 1:])):
        up = rows[y - 1] if y else np.zeros_like(row)
        for x, value in enumerate(row):
            a, c = (rows[y, x - step], up[x - step]) if x >= step else (0, 0)
            guess = (0, a, up[x], (a + up[x]) // 2, paeth(a, up[x], c))[kind]
            rows[y, x] = (value + guess) % 256
    kind = np.dtype(">u2") if depth == 16 else np.dtype(np.uint8)
    return depth, rows.astype(np.uint8).view(kind).reshape(height, width, -1).astype(kind.newbyteorder("="))


def pillow(image):
    """How Pillow shows 8-bit pictures."""
    return image, np.array(image.convert("RGBA" if "transparency" in image.info or "A" in image.mode else "RGB"))


def grey(values):
    return np.repeat(values[..., None], 3, axis=-1)


def as_jpeg(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(FLAT[..., :3]).save(path, exif=exif)
    return np.rot90(np.array(Image.open(path)), -1)


def as_palette(path, **options):
    Image.fromarray(FLAT[..., :3]).quantize(50).save(path, **options)
    return np.array(Image.open(path).convert("RGBA" if options else "RGB"))


def saved(path, values, *options):
    Image.fromarray(values, *options).save(path)
    return values


def as_tiff(path, values, **options):
    tifffile.imwrite(path, values, **options)
    return values


def deep_png(path, values):
    write_png(path, values)
    return values


KEY = struct.pack(">3H", *DEEP[3, 4, :3].tolist())
WAYS = {
    "rgb.png": lambda path: saved(path, FLAT[..., :3]),
    "rgba.png": lambda path: saved(path, FLAT),
    "grey.png": lambda path: grey(saved(path, FLAT[..., 0])),
    "grey-alpha.png": lambda path: saved(path, np.ascontiguousarray(FLAT[..., :2]), "LA")[..., [0, 0, 0, 1]],
    "one-bit.png": lambda path: grey(saved(path, FLAT[..., 0] > 127) * np.uint8(255)),
    "palette.png": as_palette,
    "see-through-palette.png": lambda path: as_palette(path, transparency=3),
    "lossless.webp": lambda path: (Image.fromarray(FLAT[..., :3]).save(path, lossless=True), FLAT[..., :3])[1],
    "turned.jpg": as_jpeg,
    "deep-grey.png": lambda path: grey(saved(path, DEEP[..., 0])),
    "deep-rgb.png": lambda path: deep_png(path, DEEP[..., :3]),
    "deep-rgba.png": lambda path: deep_png(path, DEEP),
    "deep-grey-alpha.png": lambda path: deep_png(path, DEEP[..., :2])[..., [0, 0, 0, 1]],
    "deep-grey.tif": lambda path: grey(as_tiff(path, DEEP[..., 0])),
    "deep-grey-big-endian.tif": lambda path: grey(as_tiff(path, DEEP[..., 0], byteorder=">")),
    "deep-rgb.tif": lambda path: as_tiff(path, DEEP[..., :3], photometric="rgb"),
    "deep-rgb-big-endian.tif": lambda path: as_tiff(path, DEEP[..., :3], photometric="rgb", byteorder=">"),
    "deep-rgb-strips.tif": lambda path: as_tiff(path, DEEP[..., :3], photometric="rgb", rowsperstrip=7),
    "deep-rgb-zip.tif": lambda path: as_tiff(path, DEEP[..., :3], photometric="rgb", compression="zlib"),
    "deep-rgb-zip-big-endian.tif": lambda path: as_tiff(
        path, DEEP[..., :3], photometric="rgb", compression="zlib", byteorder=">"
    ),
    "deep-rgba.tif": lambda path: as_tiff(path, DEEP, photometric="rgb", extrasamples=["unassalpha"]),
}


@pytest.fixture(scope="module", params=WAYS)
def file(request, tmp_path_factory):
    """A file, and the numbers that are in it by other means than ours: RGB or RGBA."""
    path = tmp_path_factory.mktemp("exact") / request.param
    return path, WAYS[request.param](path)


def test_files_are_read_to_the_last_bit(file):
    path, numbers = file
    picture = read_file_picture(path)
    assert picture.colours.dtype == numbers.dtype and np.array_equal(picture.colours, numbers[..., :3])
    assert (picture.alpha is None) == (numbers.shape[-1] == 3)
    assert picture.alpha is None or np.array_equal(picture.alpha, numbers[..., 3])
    assert picture.top == (65535 if path.name.startswith("deep") else 255)


def test_outside_the_region_the_saved_file_is_the_given_one(file, tmp_path):
    """As an edit goes: reduced to work at, padded, edited, feathered, put back, saved and read by another reader."""
    path, numbers = file
    given = read_file_picture(path)
    work = prepare(path, multiple=16, max_side=40)
    content, padded = work.content_size, tuple(work.pixels.shape[-2:])
    assert padded != content, "padding takes part"
    edited = 1 - work.pixels[0]
    region = Region.box(4, 5, 12, 10, size=content).feather(2).padded(padded)
    result = put_back(given, edited, region, content_size=content)
    result.save(tmp_path / "out.png", text={"stableflow": '{"seed": 1}'})

    depth, out = decode_png(tmp_path / "out.png")
    amount = region.cropped(content).resized(given.size).amount[0].numpy()
    assert depth == numbers.dtype.itemsize * 8 and out.shape == numbers.shape
    assert np.array_equal(out[amount == 0], numbers[amount == 0]) and (amount == 0).mean() > 0.5
    assert np.array_equal(out[..., 3:], numbers[..., 3:]), "opacity is kept everywhere"
    inside = amount == 1
    assert inside.any() and (out[inside][:, :3] != numbers[inside][:, :3]).mean() > 0.9
    assert read_recipe(tmp_path / "out.png") == {"seed": 1}
    again = read_file_picture(tmp_path / "out.png")
    assert np.array_equal(again.colours, out[..., :3])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_at_its_own_size_the_inside_is_the_edit_and_between_is_between(data):
    height, width = data.draw(st.integers(16, 40)), data.draw(st.integers(16, 40))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16]))
    top = np.iinfo(kind).max
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    given_picture = FilePicture(random.integers(0, top + 1, (height, width, 3)).astype(kind))
    edited = torch.from_numpy(random.random((3, height, width), np.float32))
    region = Region.box(3, 4, 9, 8, size=(height, width)).feather(data.draw(st.integers(0, 3)))
    out = put_back(given_picture, edited, region).colours
    amount = region.amount[0].numpy()
    whole = np.round(edited.permute(1, 2, 0).numpy() * np.float32(top))
    assert np.array_equal(out[amount == 0], given_picture.colours[amount == 0])
    assert np.abs(out[amount == 1] - whole[amount == 1]).max() <= 1
    low, high = np.minimum(given_picture.colours, whole), np.maximum(given_picture.colours, whole)
    assert bool(((out >= low - 1) & (out <= high + 1)).all())


def test_the_difference_keeps_detail_that_the_edit_leaves_alone():
    """Where edit and source agree, nothing changes at any resolution, also inside; where not, by what they differ."""
    given_picture = FilePicture((DEEP[..., :3] // 2 + 8192).astype(np.uint16))
    source, region = torch.rand(3, 30, 45), Region.everywhere((30, 45))
    assert np.array_equal(put_back(given_picture, source, region, source=source).colours, given_picture.colours)
    lighter = put_back(given_picture, torch.full((3, 30, 45), 0.6), region, source=torch.full((3, 30, 45), 0.5))
    change = lighter.colours.astype(int) - given_picture.colours
    assert np.abs(change - 6553.5).max() <= 1
    extreme = put_back(given_picture, torch.ones(3, 30, 45), region, source=torch.zeros(3, 30, 45))
    assert extreme.colours.min() == 65535, "clipped, not wrapped"


def test_a_transparent_colour_of_sixteen_bits(tmp_path):
    write_png(tmp_path / "a.png", DEEP[..., :3], extra=[(b"tRNS", KEY)])
    picture = read_file_picture(tmp_path / "a.png")
    assert picture.alpha is not None and np.argwhere(picture.alpha == 0).tolist() == [[3, 4]]


def swapped_profile():
    """A profile whose red and green have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for at in range(132, 132 + 12 * struct.unpack(">I", data[128:132])[0], 12):
        if data[at : at + 4] in (b"rXYZ", b"gXYZ"):
            data[at : at + 1] = b"g" if data[at : at + 1] == b"r" else b"r"
    return bytes(data)


@pytest.mark.parametrize("name", ["a.png", "deep.png"])
def test_a_profile_stays_and_the_edit_is_brought_into_it(tmp_path, name):
    profile = swapped_profile()
    if name == "a.png":
        Image.fromarray(FLAT[..., :3]).save(tmp_path / name, icc_profile=profile)
        numbers = FLAT[..., :3]
    else:
        numbers = DEEP[..., :3]
        write_png(tmp_path / name, numbers, extra=[(b"iCCP", b"x\0\0" + zlib.compress(profile))])
    given_picture = read_file_picture(tmp_path / name)
    region = Region.box(0, 0, 20, HEIGHT, size=(HEIGHT, WIDTH))
    red = torch.zeros(3, HEIGHT, WIDTH)
    red[0] = 1
    put_back(given_picture, red, region).save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert out.info["icc_profile"] == profile
    _, pixels = decode_png(tmp_path / "out.png")
    assert np.array_equal(pixels[:, 20:], numbers[:, 20:])
    top = np.iinfo(pixels.dtype).max
    assert np.abs(pixels[:, :20].astype(int) - np.array([0, top, 0])).max() <= 0.02 * top


def test_a_pil_image_is_taken_in_its_own_bits():
    picture = read_file_picture(Image.fromarray(FLAT))
    assert np.array_equal(picture.colours, FLAT[..., :3]) and np.array_equal(picture.alpha, FLAT[..., 3])
    assert np.array_equal(np.array(picture.to_pil()), FLAT)
    assert np.array_equal(np.array(FilePicture(DEEP[..., :3]).to_pil()), FLAT[..., :3])


def test_pictures_that_are_refused(tmp_path):
    Image.new("CMYK", (20, 20)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is of mode CMYK"):
        read_file_picture(tmp_path / "a.jpg")
    Image.new("F", (20, 20)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="mode F"):
        read_file_picture(tmp_path / "a.tif")
    with pytest.raises(InputError, match="holds -5 to -5"):
        read_file_picture(Image.new("I", (20, 20), -5))
    grey_profile = io.BytesIO()
    data = bytearray(swapped_profile())
    data[16:20] = b"GRAY"
    Image.new("L", (20, 20)).save(grey_profile, "PNG", icc_profile=bytes(data))
    with pytest.raises(InputError, match="profile for GRAY"):
        read_file_picture(Image.open(grey_profile))
    for compression in (None, "zlib"):
        planes = DEEP[..., :3].transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", compression=compression)
        with pytest.raises(InputError, match="channels side by side"):
            read_file_picture(tmp_path / "planes.tif")
    write_png(tmp_path / "cut.png", DEEP)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    with pytest.raises(ImageError, match="damaged or cut off"):
        read_file_picture(tmp_path / "cut.png")


def test_edits_that_do_not_fit():
    given_picture, edited = FilePicture(FLAT[..., :3]), torch.rand(3, 32, 48)
    with pytest.raises(InputError, match="Region.row takes one"):
        put_back(given_picture, edited, Region(torch.ones(2, 32, 48)))
    with pytest.raises(InputError, match="of the content's size or padded"):
        put_back(given_picture, edited, Region.everywhere((40, 48)), content_size=(40, 48))
    with pytest.raises(InputError, match="cannot be cut"):
        put_back(given_picture, edited, Region.everywhere((30, 48)))
