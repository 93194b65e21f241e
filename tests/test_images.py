import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stableflow import files
from stableflow.errors import ImageError, InputError, OutputError
from stableflow.files import check_writable, replacing, write_text_atomic
from stableflow.images import comparison_grid, load_image, prepare, read_recipe, save_png, to_pil


def gradient(height=20, width=32):
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.stack([np.tile(ramp, (height, 1)), np.full((height, width), 80, np.uint8),
                                     np.tile(ramp[::-1], (height, 1))], axis=-1))  # fmt: skip


def saved(image, tmp_path, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_formats(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {"quality": 98} if name.endswith("jpg") else {}
    pixels = load_image(saved(gradient(), tmp_path, name, **options)).pixels
    expected = torch.from_numpy(np.array(gradient())).permute(2, 0, 1) / 255
    assert pixels.shape == (3, 20, 32)
    assert (pixels - expected).abs().max() < (0.06 if name.endswith("jpg") else 1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "HSV", "LAB", "CMYK"])
def test_modes_become_rgb(mode):
    image = gradient().convert(mode) if mode != "LAB" else Image.new("LAB", (32, 20), (128, 128, 128))
    picture = load_image(image)
    assert picture.pixels.shape == (3, 20, 32) and picture.alpha is None
    assert picture.pixels.min() >= 0 and picture.pixels.max() <= 1


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (20, 1))
    pixels = load_image(saved(Image.fromarray(values), tmp_path, "a.png")).pixels
    assert torch.allclose(pixels[0, 0], torch.linspace(0, 1, 32), atol=1e-4)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_pictures(top):
    values = np.tile(np.linspace(0, top, 32).astype(np.float32), (20, 1))
    assert torch.allclose(load_image(Image.fromarray(values)).pixels[1, 3], torch.linspace(0, 1, 32), atol=1e-5)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert load_image(saved(gradient(), tmp_path, "a.jpg", exif=exif)).pixels.shape == (3, 32, 20)


def test_alpha_is_kept_and_hidden_colours_are_not_seen():
    image = gradient().convert("RGBA")
    mask = Image.new("L", image.size, 255)
    mask.paste(0, (0, 0, 16, 20))
    mask.paste(128, (16, 0, 24, 20))
    image.putalpha(mask)
    picture = load_image(image)
    assert picture.alpha is not None and sorted(picture.alpha.unique().tolist()) == [0, pytest.approx(128 / 255), 1]
    assert (picture.pixels[:, :, :16] == 1).all()
    again = to_pil(picture.pixels, picture.alpha)
    assert again.mode == "RGBA" and np.array_equal(np.array(again)[..., 3], np.array(image)[..., 3])
    assert np.array_equal(np.array(again)[:, 16:, :3], np.array(image)[:, 16:, :3])


def test_palette_transparency():
    image = gradient().convert("P")
    image.info["transparency"] = image.getpixel((0, 0))
    assert load_image(image).alpha is not None


def test_an_opaque_alpha_is_dropped():
    assert load_image(gradient().convert("RGBA")).alpha is None


def test_embedded_profiles_are_converted(tmp_path):
    """A linear-light profile brightens the mid tones; sRGB changes nothing; an unusable profile is passed over."""
    image, plain = gradient(), load_image(gradient()).pixels
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (load_image(saved(image, tmp_path, "srgb.png", icc_profile=srgb)).pixels - plain).abs().max() < 2 / 255
    assert torch.equal(load_image(saved(image, tmp_path, "broken.png", icc_profile=b"no profile")).pixels, plain)
    linear = saved(image, tmp_path, "linear.png", icc_profile=with_linear_curves(srgb))
    assert load_image(linear).pixels[1].mean() > plain[1].mean() + 0.1


def with_linear_curves(profile):
    """The profile with every tone curve replaced by a straight line."""
    data, count = bytearray(profile), struct.unpack(">I", profile[128:132])[0]
    for entry in range(132, 132 + 12 * count, 12):
        name, offset, _ = struct.unpack(">4sII", profile[entry : entry + 12])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv" + bytes(4) + bytes(4)  # a curve of no entries is the identity
    return bytes(data)


def test_cmyk_is_close_to_srgb(tmp_path):
    path = saved(gradient().convert("CMYK"), tmp_path, "a.jpg", quality=98)
    assert (load_image(path).pixels - load_image(gradient()).pixels).abs().mean() < 0.03


def png_header(width, height):
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 64) + b"IDAT" + b"\x00" * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"", r"is empty \(0 bytes\)"),
        (b"hello world", "is not a picture"),
        (png_header(10000, 6000), "60 megapixels; the limit is 40"),
        (png_header(100000, 100000), "larger than the limit"),
        ("jpeg cut", "damaged or cut off"),
        ("png cut", "damaged or cut off"),
        ("1x1", "1x1; each side needs at least 16"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "picture.png"
    if content in ("jpeg cut", "png cut"):
        buffer = io.BytesIO()
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
        noise.save(buffer, format="JPEG" if content == "jpeg cut" else "PNG")
        content = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    elif content == "1x1":
        Image.new("RGB", (1, 1)).save(path)
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        load_image(path)


def test_folders_are_no_pictures(tmp_path):
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)


@pytest.mark.parametrize("bad", [torch.zeros(20, 20), torch.zeros(3, 20, 20, dtype=torch.uint8),
                                 torch.full((3, 20, 20), 2.0), torch.full((3, 20, 20), float("nan"))])  # fmt: skip
def test_bad_tensors(bad):
    with pytest.raises(ImageError, match="picture tensor"):
        load_image(bad)


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 70), st.integers(16, 70), st.sampled_from([4, 8, 16]))
def test_padding_and_cropping_is_the_identity(height, width, multiple):
    pixels = torch.rand(3, height, width)
    ready = prepare(pixels, multiple=multiple)
    assert ready.pixels.shape[-2] % multiple == 0 and ready.pixels.shape[-1] % multiple == 0
    assert ready.pixels.shape[-2] - height < multiple and ready.pixels.shape[-1] - width < multiple
    height, width = ready.content_size
    assert torch.equal(ready.pixels[0, :, :height, :width], pixels)


def test_large_pictures_are_reduced_and_small_ones_never_enlarged():
    assert prepare(torch.rand(3, 300, 200), multiple=8, max_side=64).content_size == (64, 43)
    assert prepare(torch.rand(3, 30, 20), multiple=8, max_side=64).content_size == (30, 20)
    assert prepare(torch.rand(3, 30, 20), multiple=8, height=64, width=48).content_size == (64, 48)
    with pytest.raises(InputError, match="both height and width"):
        prepare(torch.rand(3, 30, 20), multiple=8, height=64)


def test_recipes_come_back(tmp_path):
    recipe = {"prompt": "a dög", "seed": 3}
    save_png(tmp_path / "a.png", gradient(), text={"parameters": "a dög", "stableflow": json.dumps(recipe)})
    assert read_recipe(tmp_path / "a.png") == recipe
    assert Image.open(tmp_path / "a.png").info["parameters"] == "a dög"
    gradient().save(tmp_path / "plain.png")
    with pytest.raises(ImageError, match="holds no stableflow recipe"):
        read_recipe(tmp_path / "plain.png")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, failing):
    target = tmp_path / "a.png"
    target.write_bytes(b"what was there before")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full) if failing == "fsync" else monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_png(target, gradient())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"what was there before"


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for write in (lambda: write_text_atomic(blocked / "a.txt", "x"), lambda: check_writable(blocked)):
        with pytest.raises(OutputError, match="Cannot write"):
            write()
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_comparison_grid_shows_every_picture_enlarged():
    grid = comparison_grid([gradient(64, 64)] * 5, ["source: a dog", "a very long edited prompt " * 4, "b", "c", "d"])
    assert grid.width > 5 * 224 and grid.height > 224
