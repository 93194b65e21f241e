"""Pictures of every kind against numbers worked out without Pillow: format, colour, depth, profile, transparency."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stableflow.errors import ImageError, NumericsError, StableFlowError
from stableflow.images import load_image, prepare, read_recipe, to_pil

SIDE = 32
COLOURS = {"grey": (0, 1), "rgb": (2, 3), "palette": (3, 1), "grey alpha": (4, 2), "rgb alpha": (6, 4)}
DEPTHS = {
    "grey": (1, 2, 4, 8, 16),
    "rgb": (8, 16),
    "palette": (1, 2, 4, 8),
    "grey alpha": (8, 16),
    "rgb alpha": (8, 16),
}
CASES = [
    (colour, bits, profile, keyed)
    for colour, depths in DEPTHS.items()
    for bits in depths
    for profile in (None, "own space", "unusable", "other space")
    for keyed in ([False, True] if "alpha" not in colour else [False])
]


# -- an independent PNG writer and an independent colour transform


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: np.ndarray, colour: str, bits: int, extra: bytes = b"") -> bytes:
    """`values` (height, width, channels) in 0..2**bits - 1."""
    height, width = values.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    elif bits == 8:
        rows = [row.astype(np.uint8).tobytes() for row in values]
    else:
        spread = (values[..., 0][..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in spread]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, COLOURS[colour][0], 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(x * 65536)) for x in numbers)


def profile_of(space: str, gamma: float = 1.8) -> bytes:
    """A small ICC profile: Rec. 2020's primaries (adapted to D50), or grey, with one gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    xyz = lambda *numbers: b"XYZ " + bytes(4) + fixed(*numbers)  # noqa: E731
    tags = {
        b"desc": b"desc\0\0\0\0\0\0\0\2t\0" + bytes(78),
        b"cprt": b"text\0\0\0\0t\0\0\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
    }
    if space == "RGB ":
        tags |= {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), WIDE.T)}
        tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    else:
        tags |= {b"kTRC": curve}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    head = struct.pack(">I", 128 + len(table) + len(body)) + b"lcms\2\x10\0\0mntr" + space.encode() + b"XYZ "
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acspAPPL" + bytes(24) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body


WIDE = np.array([[0.67348, 0.16567, 0.12505], [0.27904, 0.67535, 0.04561], [-0.00193, 0.02999, 0.79684]])
SRGB = np.array([[0.43607, 0.38515, 0.14308], [0.22249, 0.71687, 0.06062], [0.01393, 0.09708, 0.71410]])  # to XYZ, D50


def encoded(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def transformed(rgb: np.ndarray, space: str, gamma: float = 1.8) -> np.ndarray:
    if space == "GRAY":
        return encoded(rgb**gamma)
    return encoded(rgb**gamma @ WIDE.T @ np.linalg.inv(SRGB).T)


# -- the table


def example(colour: str, bits: int, profile: str | None, keyed: bool):
    """A file, the colours it should give and its opacity (None for opaque)."""
    channels, top = COLOURS[colour][1], 2**bits - 1
    values = np.random.default_rng(bits).integers(0, top + 1, (SIDE, SIDE, channels))
    values[:4, :, 0] = 0
    grey = colour.startswith("grey")
    exact = values if bits < 16 or colour == "grey" else (values >> 8) * 257  # of 16 bits a channel the upper are kept
    extra, shown = b"", exact[..., :3] / top
    if colour == "palette":
        table = np.random.default_rng(1).integers(20, 230, (top + 1, 3))
        shown = table[values[..., 0]] / 255
        tables = chunk(b"PLTE", table.astype(np.uint8).tobytes())
    elif grey:
        shown = np.repeat(exact[..., :1] / top, 3, axis=-1)
    if profile is not None:
        space = "GRAY" if grey == (profile == "own space") else "RGB "
        data = b"no profile" if profile == "unusable" else profile_of(space)
        extra += chunk(b"iCCP", b"p\0\0" + zlib.compress(data))
        if profile == "own space" or (profile == "other space" and grey):  # grey in an RGB profile is well defined
            shown = transformed(shown, space)
    extra += tables if colour == "palette" else b""
    alpha = exact[..., -1] / top if "alpha" in colour else None
    if keyed:
        first = values[0, 0]
        same = (values == first).all(-1)
        extra += chunk(b"tRNS", b"\0" if colour == "palette" else struct.pack(f">{channels}H", *first))
        alpha = np.where(same, 0.0, 1.0) if colour != "palette" else np.where(values[..., 0] == 0, 0.0, 1.0)
    return png(values, colour, bits, extra), shown, alpha


@pytest.mark.parametrize(("colour", "bits", "profile", "keyed"), CASES)
def test_every_kind_of_png(tmp_path, colour, bits, profile, keyed):
    data, shown, alpha = example(colour, bits, profile, keyed)
    (tmp_path / "a.png").write_bytes(data)
    picture = load_image(tmp_path / "a.png")
    if alpha is None:
        assert picture.alpha is None
        visible = np.ones((SIDE, SIDE), dtype=bool)
    else:
        assert picture.alpha is not None
        assert (
            np.abs(picture.alpha.numpy() - alpha).max() <= (0.5 if bits < 16 else 1) / 255 + 1e-6
        )  # of 16 bits the upper ones are kept
        visible = alpha > 0.002
        assert (picture.pixels.numpy()[:, alpha == 0] == 1).all()
    bound = 1.01 / 255 if profile in (None, "unusable") else 2.6 / 255  # 8 bits; a profile works on them
    found = picture.pixels.permute(1, 2, 0).numpy()
    assert np.abs(found - shown)[visible].max() < bound


@pytest.mark.parametrize("form", ["tif", "png", "pgm"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32 of 16 bits", "int32", "int32 of 8 bits", "negative"])
def test_integers_of_every_width(tmp_path, form, kind):
    rng = np.random.default_rng(0)
    values = {
        "uint8": rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8),
        "uint16": rng.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16),
        "int32 of 16 bits": rng.integers(0, 65536, (SIDE, SIDE)).astype(np.int32),
        "int32": rng.integers(0, 2**31, (SIDE, SIDE)).astype(np.int32),
        "int32 of 8 bits": rng.integers(0, 256, (SIDE, SIDE)).astype(np.int32),
        "negative": rng.integers(-5000, 60000, (SIDE, SIDE)).astype(np.int32),
    }[kind]
    if form != "tif" and kind not in ("uint8", "uint16"):
        source = Image.fromarray(values)  # given from memory: those formats hold no 32 bits
    else:
        source = tmp_path / f"a.{form}"
        Image.fromarray(values).save(source)
    if kind in ("int32", "int32 of 8 bits", "negative"):
        with pytest.raises(ImageError, match="32-bit integers"):
            load_image(source)
    else:
        white = 255 if kind == "uint8" else 65535
        assert np.abs(load_image(source).pixels[0].numpy() - values / white).max() < 1e-5


FLOATS = {
    "0 to 1": (lambda x: x, 1),
    "a highlight": (lambda x: np.where(np.arange(SIDE * SIDE).reshape(SIDE, SIDE) == 5, 40.0, x), 1),
    "a small undershoot": (lambda x: np.where(x < 0.01, -0.02, x), 1),
    "8 bits": (lambda x: np.round(x * 255), 255),
    "8-bit range": (lambda x: x * 255, 255),
    "black": (lambda x: x * 0, 1),
    "bright everywhere": (lambda x: x * 5, None),
    "a sun": (lambda x: np.where(x > 0.99, 250.0, x * 3), None),
    "16-bit range": (lambda x: x * 65535, None),
    "signed": (lambda x: x * 2 - 1, None),
    "labels": (lambda x: np.round(x * 7), None),
    "NaN": (lambda x: np.where(x > 0.99, np.nan, x), None),
    "infinity": (lambda x: np.where(x > 0.99, np.inf, x), None),
    "minus infinity": (lambda x: np.where(x > 0.99, -np.inf, x), None),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_of_every_range(tmp_path, kind):
    change, white = FLOATS[kind]
    values = change(np.random.default_rng(0).random((SIDE, SIDE))).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    for source in (tmp_path / "a.tif", Image.fromarray(values)):
        if white is None:
            with pytest.raises(ImageError, match="a.tif|PIL image") as caught:
                load_image(source)
            assert "floats from" in str(caught.value) or "no numbers" in str(caught.value)
        else:
            assert np.abs(load_image(source).pixels[2].numpy() - np.clip(values / white, 0, 1)).max() < 1e-6


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_every_mode_of_pillow_is_read(mode):
    base = Image.new("RGBA", (SIDE, SIDE), (200, 40, 40, 128))
    if mode == "La":
        image = base.convert("LA").convert("La")
    elif mode == "PA":
        image = Image.new("P", (SIDE, SIDE))
        image.putalpha(128)
    elif mode == "RGBa":
        image = base.convert(mode)
    elif mode == "LAB":
        image = Image.new("LAB", (SIDE, SIDE), (128, 128, 128))
    else:
        image = base.convert("RGB").convert(mode) if "A" not in mode else base.convert(mode)
    picture = load_image(image)
    assert picture.pixels.shape == (3, SIDE, SIDE) and bool(picture.pixels.isfinite().all())
    assert (picture.alpha is not None) == (mode in ("LA", "La", "PA", "RGBA", "RGBa"))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("key", [b"workflow", b"stableflow", b"XML:com.adobe.xmp", b"Raw profile type exif"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_texts_in_a_png_never_make_it_unreadable(tmp_path, name, key, after, size):
    data, shown, _ = example("rgb", 8, None, False)
    packed = zlib.compress(b"0" * size)
    text = {b"zTXt": b"\0" + packed, b"iTXt": b"\1\0\0\0" + packed, b"tEXt": b"0" * size}[name]
    at = data.index(b"IEND" if after else b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + chunk(name, key + b"\0" + text) + data[at:])
    assert np.abs(load_image(tmp_path / "a.png").pixels.permute(1, 2, 0).numpy() - shown).max() < 1e-6
    with pytest.raises(ImageError):
        read_recipe(tmp_path / "a.png")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "TGA"]), st.data())
def test_damaged_files_are_read_or_refused_by_name(tmp_path_factory, form, data):
    path = tmp_path_factory.mktemp("damaged") / f"a.{form.lower()}"
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format=form)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, min(len(content) - 1, 400)), max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert bool(load_image(path).pixels.isfinite().all())
    except ImageError as error:
        assert path.name in str(error) or "each side needs" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n%%EOF\n",
        b"<svg xmlns='x'/>",
        b"%PDF-1.4",
        b"PK\3\4",
    ],
)
def test_formats_that_would_start_other_programs_are_not_opened(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="not a picture that can be read"):
        load_image(tmp_path / "a.png")


NO_PICTURES = [
    *(
        None,
        3,
        b"a.png",
        [],
        np.zeros((64, 64, 3), np.uint8),
        "a\0b.png",
        "~nosuchuserhere/a.png",
        "x" * 5000,
        "/dev/zero",
    ),
    *(torch.zeros(3, 0, 0), torch.zeros(3, 32, 32, device="meta"), torch.zeros(3, 32, 32).to_sparse()),
    Image.new("RGB", (0, 9)),
]


@pytest.mark.parametrize("given_image", NO_PICTURES, ids=lambda value: ascii(value)[:12])
def test_what_is_no_picture(given_image):
    with pytest.raises(ImageError, match="icture|image|is no|cannot be read"):
        load_image(given_image)


@pytest.mark.parametrize(
    "sizes",
    [
        dict(zip(("height", "width"), size))
        for size in (("64", 64), (64.5, 64), (0, 64), (-1, 64), (2**40, 64), (None, 3))
    ]
    + [{"max_side": side} for side in (0, -1, "64", 1.5, True)],
)
def test_sizes_that_are_none(sizes):
    with pytest.raises(StableFlowError, match="height|max_side"):
        prepare(torch.rand(3, 32, 32), multiple=8, **sizes)


def test_what_is_no_number_is_not_written():
    with pytest.raises(NumericsError):
        to_pil(torch.full((3, 32, 32), float("nan")))
