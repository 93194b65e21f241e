"""`published=True` against what the authors' releases compute, written out plainly: their order, times and slices."""

import pytest
import torch
from quick import EDITS, PROMPT, smooth

from stableflow.editing import EDITORS
from stableflow.models.base import Conditioning

PICTURE = torch.tensor(smooth(16, 16)).permute(2, 0, 1).float()
STEPS, INJECTED = 4, 2


@pytest.fixture
def told(model):
    return model.encode_prompt([PROMPT]), model.encode_prompt([EDITS[0]])


class Features:
    """The releases' dictionary of values: all tokens, by the name of time, half of the step and single block."""

    def __init__(self, model, blocks, strict):
        singles = model.pipeline.transformer.single_transformer_blocks
        self.kept, self.time, self.half, self.on, self.inverse, self.strict = {}, None, None, False, True, strict
        self.handles = [
            singles[i].attn.to_v.register_forward_hook(lambda m, a, out, i=i: self.fire(i, out)) for i in blocks
        ]

    def fire(self, block, out):
        name = (self.time, self.half, block)
        if not self.on:
            return None
        if self.inverse:
            self.kept[name] = out.clone()
            return None
        assert name in self.kept or not self.strict
        return self.kept.get(name)

    def close(self):
        for handle in self.handles:
            handle.remove()


def sampled(model, features, z, times, told, guidance, *, inverse, fireflow):
    inject = [True] * INJECTED + [False] * (STEPS - INJECTED)
    if inverse:
        times, inject = times[::-1], inject[::-1]
    before = None
    for on, t, other in zip(inject, times[:-1], times[1:]):
        features.time, features.on, features.inverse = (other if inverse else t), on, inverse
        features.half = False
        v = before
        if v is None:
            v = model.velocity(z, t, told, guidance_scale=guidance)
        features.half = True
        middle = model.velocity(z + (other - t) / 2 * v, t + (other - t) / 2, told, guidance_scale=guidance)
        if fireflow:
            z, before = z + (other - t) * middle, middle
        else:
            slope = (middle - v) / ((other - t) / 2)
            z = z + (other - t) * v + 0.5 * (other - t) ** 2 * slope
    return z


@pytest.mark.parametrize("solver", ["midpoint", "fireflow"])
def test_rf_solver_edit_and_fireflow(model, told, solver):
    editor = EDITORS["rf-solver-edit"](
        model, num_steps=STEPS, inject_steps=INJECTED, solver=solver, published=True, guidance_scale=2.0
    )
    source = editor.invert(PICTURE, PROMPT)
    found = editor.edit(source, EDITS[0])
    blocks = range(len(model.pipeline.transformer.single_transformer_blocks))
    blocks = list(blocks) if solver == "fireflow" else list(blocks)[len(blocks) * 20 // 38 :]
    times = list(model.time_grid(STEPS, 16, 16).times)
    features = Features(model, blocks, strict=solver == "midpoint")
    with torch.no_grad():
        noise = sampled(
            model, features, source.latents, times, told[0], 1.0, inverse=True, fireflow=solver == "fireflow"
        )
        expected = sampled(model, features, noise, times, told[1], 2.0, inverse=False, fireflow=solver == "fireflow")
    features.close()
    assert float((found.latents - expected).abs().max()) <= 1e-5
    right = editor.edit(source, EDITS[0], published=False)
    assert float((found.latents - right.latents).abs().max()) > 1e-4, "the release is not the default"


def test_fireflow_without_the_releases_faults_returns_the_source_in_small_steps(model):
    gaps = []
    for steps in (8, 32):
        editor = EDITORS["rf-solver-edit"](model, num_steps=steps, inject_steps=steps, solver="fireflow")
        source = editor.invert(PICTURE, PROMPT)
        gaps.append(float((editor.edit(source, PROMPT, guidance_scale=1.0).latents - source.latents).abs().max()))
    assert gaps[1] < gaps[0] / 4, gaps


def test_rf_inversion(model, told):
    editor = EDITORS["rf-inversion"](model, num_steps=8, published=True, seed=3, guidance_scale=2.5)
    source = editor.invert(PICTURE, PROMPT)
    found = editor.edit(source, EDITS[0])
    sigmas, n = list(model.time_grid(8, 16, 16).times), 8
    assert len(sigmas) == n + 1
    clean, empty = source.latents, model.encode_prompt([""])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    y = clean
    with torch.no_grad():
        for i in range(n):
            t = i / (n + 1)
            u = model.velocity(y, t, empty, guidance_scale=0.0)
            y = y + (u + 0.5 * ((noise - y) / (1 - t) - u)) * (sigmas[i] - sigmas[i + 1])
        for i in range(n):
            v = -model.velocity(y, sigmas[i], told[1], guidance_scale=2.5)
            if i < int(0.25 * n):
                v = v + 0.9 * ((clean - y) / sigmas[i] - v)
            y = y + v * (sigmas[i] - sigmas[i + 1])
    assert float((found.latents - y).abs().max()) <= 1e-5
    right = editor.edit(source, EDITS[0], published=False)
    assert float((found.latents - right.latents).abs().max()) > 1e-3
    assert isinstance(empty, Conditioning)
    within = editor.edit(source, EDITS[0], region="box:0,0,8,16")
    assert torch.equal(within.images[..., 12:], source.given[..., 12:])
