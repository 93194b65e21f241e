"""Regions from words, moves, backgrounds, and the measurement, beside the library's own."""

import json
import types

import pytest
import torch
from on_host import PROMPT, STEPS, TARGET, Setting

import stableflow as sf
from stableflow.editing.looking import noised
from stableflow.editing.where import REGIONS


@pytest.fixture(scope="module")
def setting(pack, as_model, pipeline, model):
    return Setting(pack, as_model(pipeline.transformer), model)


@pytest.fixture(scope="module")
def theirs(setting):
    return sf.StableFlow(setting.library, layers=[1]).generate(PROMPT, seed=3, num_steps=STEPS, guidance_scale=3.5)


@pytest.fixture(scope="module")
def source(setting, theirs):
    return setting.source(theirs)


@pytest.fixture(scope="module")
def clip(setting):
    """CLIP Text Encode's part of a CLIP."""
    return types.SimpleNamespace(tokenize=lambda text: text, encode_from_tokens_scheduled=setting.prompt)


def test_a_words_region_is_the_librarys_under_noise(setting, theirs, source, clip, monkeypatch):
    """The library looks on the source's own path by now, where it has one; the node at the picture under noise."""
    monkeypatch.setattr("stableflow.editing.finding.on_path", noised)
    found = {}

    class Looking(sf.StableFlow):
        name = "looking"

    def look(run):
        found["region"] = REGIONS["word"](run, "dog")
        return found["region"]

    sf.StableFlow(setting.library, layers=[1]).edit(theirs, TARGET, region=look, guidance_scale=3.5)
    (mask,) = setting.node("RegionFromWord", clip=clip, source=source, prompt=PROMPT, word="dog", guidance=3.5)
    assert torch.equal(mask, found["region"].amount)
    assert 0 < float(mask.mean()) < 1


def test_what_moves_is_carried_whole(setting, source):
    """With the source's own prompt and all layers, everything but the vacated place is the source's, carried."""
    mask = torch.zeros(1, 16, 16)
    mask[:, 0:8, 0:4] = 1.0  # tokens of 4 pixels: 2 rows, 1 column
    moved, vacated = setting.node("Move", source=source, mask=mask, right=8, down=4, seed=0)
    wanted = torch.zeros(4, 4)
    wanted[0:2, 0] = 1.0
    assert torch.equal(vacated[0], wanted.repeat_interleave(4, 0).repeat_interleave(4, 1))
    edit = setting.edit(moved, setting.hold("all"), prompt=PROMPT, mask=vacated)
    carried = source.picture.clone()
    carried[..., 2:6, 4:6] = source.picture[..., 0:4, 0:2]
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[0:4, 0:2] = False
    torch.testing.assert_close(edit[..., outside], carried[..., outside], atol=1e-5, rtol=0)
    assert float((edit - carried)[..., ~outside].abs().max()) > 0.1
    assert source.warp is None


def test_moved_keys_are_read_from_where_they_came(setting, source, theirs):
    """A move to the right and the same one back from there reads every token in its own place."""
    warp_there = setting.node("Move", source=source, mask=torch.ones(1, 16, 16), right=4, down=0, seed=0)[0].warp
    features = torch.arange(16.0).reshape(1, 16, 1)
    carried = warp_there.tokens(features).reshape(4, 4)
    assert carried[0].tolist() == [0.0, 0.0, 1.0, 2.0]
    kept = setting.source(theirs, keep=setting.hold("all"))
    mask = torch.zeros(1, 16, 16)
    mask[:, 0:8, 0:4] = 1.0
    edits = []
    for one in (source, kept):
        moved, vacated = setting.node("Move", source=one, mask=mask, right=4, down=0, seed=0)
        edits.append(setting.edit(moved, setting.hold("all"), mask=vacated))
    torch.testing.assert_close(*edits, atol=1e-5, rtol=0)


def test_a_background_leaves_every_token_of_the_figure(setting, source):
    figure = torch.zeros(1, 16, 16)
    figure[:, 5:9, 5:9] = 1.0  # touches 4 tokens
    hold, free = setting.node("Background", source=source, figure=figure)
    assert float(free.sum()) == 12 * 16 and float(free[0, 4:12, 4:12].sum()) == 0
    edit = setting.edit(source, hold, mask=free)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    torch.testing.assert_close(edit[..., inside], source.picture[..., inside], atol=1e-5, rtol=0)
    assert float((edit - source.picture)[..., ~inside].abs().max()) > 0.1


def test_bypassed_layers_are_the_librarys(setting, theirs):
    """What vitality is measured by: the picture without a layer."""
    noise, prompt = theirs.path.at(1.0), setting.library.encode_prompt([PROMPT])
    for layer in (0, 1, 3):
        block = setting.pack.host.numbering_of(setting.model).block(layer)
        ours = setting.sample(setting.pack.host.bypassed(setting.model, block), PROMPT, noise=noise)
        with setting.library.attach(sf.Bypass([layer])):
            z = noise
            for t0, t1 in zip(setting.sigmas.tolist(), setting.sigmas.tolist()[1:]):
                z = z + (t1 - t0) * setting.library.velocity(z, t0, prompt, guidance_scale=3.5)
        torch.testing.assert_close(ours, z, atol=1e-4, rtol=0)


def test_the_measurement_ranks_layers(setting, pack):
    vae = types.SimpleNamespace(decode=lambda z: z[:, :3].permute(0, 2, 3, 1).sigmoid())
    latent = {"samples": torch.zeros(setting.size)}
    hold, chart, text = setting.node(
        "MeasureVital", vae=vae, positive=setting.prompt(PROMPT), latent=latent, first_seed=0, seeds=2, steps=2,
        choice="top:2",
    )  # fmt: skip
    report = json.loads(text)
    ranked = sorted(range(5), key=lambda layer: -report["vitality"][layer])
    assert report["layers"] == sorted(ranked[:2]) and max(report["vitality"]) > 0
    assert hold[0].layers == tuple(report["layers"])
    assert chart.shape[-1] == 3 and float(chart.std()) > 0
