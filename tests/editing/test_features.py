"""Features: the same picture matches itself, a shifted one matches shifted, and edits are told apart."""

import pytest
import torch
from on_families import model_of, on_two_families, picture

import stableflow as sf
from stableflow.errors import InputError
from stableflow.region import Region
from stableflow.scenes import edit, render, sample_split

CAPTION = "a red dog standing on the grass at noon"


@pytest.fixture(scope="module")
def pictures():
    """A scene, the same 16 pixels further left, and with the subject in another colour."""
    scene = edit(sample_split(30_000_001, held=True), subject="dog", colour="red", style="flat")
    plain = render(scene, 64)
    return plain, plain.roll(-16, -1), render(edit(scene, colour="blue"), 64)


@pytest.fixture(scope="module")
def found(pictures):
    model = sf.load("tiny")
    return [sf.features(model, image, CAPTION, draws=4) for image in pictures]


def test_points_of_a_shifted_picture_are_found_where_they_went(found):
    plain, shifted, _ = found
    points = [(x, y) for x in range(20, 60, 8) for y in range(6, 62, 8)]
    assert all(max(abs(x - u), abs(y - v)) <= plain.cell for (x, y), (u, v) in zip(points, plain.match(points, plain)))
    there = plain.match(points, shifted)
    near = [abs(x - 16 - u) <= 8 and abs(y - v) <= 8 for (x, y), (u, v) in zip(points, there)]
    chance = [abs(x - 16 - u) <= 8 and abs(y - v) <= 8 for (x, y), (u, v) in zip(points, points)]
    assert sum(near) / len(near) > 0.6 > sum(chance) / len(chance) + 0.3, sum(near) / len(near)


def test_a_region_goes_with_its_content(found):
    plain, shifted, _ = found
    box = Region.box(24, 24, 24, 24, size=(64, 64))
    moved = plain.carry(box, shifted).amount[0] > 0.5
    expected = Region.box(8, 24, 24, 24, size=(64, 64)).amount[0] > 0.5
    union = (moved | expected).sum()
    assert (moved & expected).sum() / union > 0.5
    assert torch.equal(plain.carry(box, plain).amount, box.amount), "tokens of its own picture are its likest"


def test_consistency_falls_where_an_edit_changes_something(found):
    plain, shifted, recoloured = found
    assert plain.consistency(plain) == pytest.approx(1, abs=1e-5)
    assert 0 < plain.consistency(shifted) < plain.consistency(recoloured) < 1
    with pytest.raises(InputError, match="outside the 64 x 64 pixels"):
        plain.match([(64, 0)], plain)


@on_two_families
def test_features_are_what_the_key_projection_is_given(family):
    model, image = model_of(family), picture(16)
    found = sf.features(model, image, "a red dog", draws=2, layer=1)
    rows, columns = 16 // model.pixel_multiple, 16 // model.pixel_multiple
    assert found.values.shape[1:] == (rows, columns)
    assert torch.allclose(found.values.square().sum(0), torch.ones(rows, columns), atol=1e-5)
    inputs, module = [], model.layers[1].projections("key")[0].module
    handle = module.register_forward_hook(lambda m, args, out: inputs.append(args[0]))
    again = sf.features(model, image, "a red dog", draws=2, layer=1)
    handle.remove()
    assert torch.equal(again.values, found.values) and len(inputs) == 2
    mean = torch.stack(inputs).mean(0)[0, : rows * columns]
    mean[:, list(found.massive)] = 0
    expected = torch.nn.functional.normalize(mean, dim=1).T.reshape(-1, rows, columns)
    if model.layers[1].kind == "double":
        assert torch.allclose(found.values, expected, atol=1e-5)
