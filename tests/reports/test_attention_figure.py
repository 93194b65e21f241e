"""The attention figure shows the numbers of the result and nothing else."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import stableflow as sf
from stableflow.errors import InputError, MissingExtraError
from stableflow.reports.attention import attention_figure
from stableflow.reports.figures import save_figure

GROUPS = {"injected: 0, 3": [0, 3], "not injected: others": [1, 2, 4]}


@pytest.fixture(scope="module")
def result(model):
    editor = sf.StableFlow(model, layers=[0, 3])
    source = editor.generate("a red dog on the grass", seed=1, num_steps=2)
    return sf.attention(editor, source, ["a blue dog on the grass"], points=[(1, 0), (14, 6)])


def test_it_shows_the_numbers(result, tmp_path):
    figure = attention_figure(result, GROUPS, labels=["kept", "changed"])
    axes = np.array(figure.axes, dtype=object).reshape(2, 6)
    for column, layers in ((2, [0, 3]), (4, [1, 2, 4])):
        mean = result.edits[0].mean(layers)
        for row in range(2):
            heat, bars = axes[row, column], axes[row, column + 1]
            drawn = np.asarray(heat.images[1].get_array())
            assert np.allclose(drawn[::4, ::4], mean.image[row].numpy()), "4 x 4 tokens of 4 pixels"
            lengths = [bar.get_width() for bar in bars.patches]
            assert np.allclose(lengths, [*mean.text[row], mean.rest[row]])
            assert [label.get_text() for label in bars.get_yticklabels()] == [*result.edits[0].words, "(end)"]
            underneath = result.source_image[0] if column == 2 else result.images[0]
            assert np.allclose(heat.images[0].get_array(), underneath.mean(0))
    changed = {bar.get_facecolor() for bar in axes[0, 3].patches[1:2]} - {axes[0, 3].patches[0].get_facecolor()}
    assert changed, "'blue' is new and stands out"
    assert axes[1, 0].get_title().startswith("changed")
    for name, start in (("maps.png", b"\x89PNG"), ("maps.svg", b"<?xml")):
        assert save_figure(figure, tmp_path / name).read_bytes().startswith(start)
    assert Image.open(tmp_path / "maps.png").width > 800
    assert torch.equal(result.source_image, result.source_image.clamp(0, 1))


def test_refusals(result, monkeypatch):
    with pytest.raises(InputError, match="edit must lie in 0..0"):
        attention_figure(result, GROUPS, edit=1)
    with pytest.raises(InputError, match="1 labels were given for 2 points"):
        attention_figure(result, GROUPS, labels=["one"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"stableflow\[bench\]"):
        attention_figure(result, GROUPS)
