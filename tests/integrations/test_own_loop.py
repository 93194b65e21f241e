"""Injection and interventions around a pipeline's own calls: what the library's edit is, to the last bit."""

import pytest
import torch
from families import FAMILIES
from tiny_flux import NUM_LAYERS, SIZE, tiny_flux_pipeline

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.errors import InputError, InterventionError
from stableflow.models.latents import unpack

SOURCE, EDIT = "a red dog standing on the grass", "a blue dog standing on the snow"
STEPS = 4


@pytest.fixture(scope="module")
def editor(model):
    return sf.StableFlow(model, layers=[0, 2, 3], kv_memory="device")


@pytest.fixture(scope="module")
def source(editor):
    return editor.generate(SOURCE, seed=1, num_steps=STEPS, guidance_scale=3.5)


def drawn(pipeline, start, prompt=EDIT, **settings):
    """The pipeline's own call, from where injection starts."""
    tokens = pipeline(
        prompt, latents=start.latents, num_inference_steps=start.num_inference_steps, height=start.height,
        width=start.width, guidance_scale=3.5, output_type="latent", **settings,
    ).images  # fmt: skip
    return unpack(tokens, rows=SIZE // 4)


def test_a_pipelines_own_call_draws_the_librarys_edit(pipeline, editor, source):
    with sf.inject(pipeline, source=source, layers=[0, 2, 3]) as start:
        latents = drawn(pipeline, start)
    assert torch.equal(latents, editor.edit(source, EDIT).latents)


def test_layers_that_were_not_recorded_are(pipeline, editor, source):
    with sf.inject(pipeline, source=source, layers="all") as start:
        latents = drawn(pipeline, start)
    assert torch.equal(latents, editor.edit(source, EDIT, layers="all").latents)
    assert start.layers == tuple(range(NUM_LAYERS))


def test_an_inverted_picture(pipeline, editor):
    picture = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    source = editor.invert(
        picture, SOURCE, solver="euler", inversion="paper", num_steps=STEPS, nudge_scale=1.0, guidance_scale=3.5
    )
    with sf.inject(pipeline, source=source, layers=[0, 2, 3]) as start:
        latents = drawn(pipeline, start)
    assert torch.equal(latents, editor.edit(source, EDIT, guidance_scale=3.5).latents)


def test_outside_the_block_the_pipeline_is_its_own(pipeline, source):
    with sf.inject(pipeline, source=source, layers=[0]) as start:
        injected = drawn(pipeline, start)
    before, after = drawn(pipeline, start), drawn(pipeline, start)
    assert torch.equal(before, after) and not torch.equal(before, injected)
    assert "forward" not in vars(pipeline.transformer)


def test_in_bfloat16_rounded_times_are_told():
    pipeline = tiny_flux_pipeline().to(torch.bfloat16)
    editor = sf.StableFlow(sf.wrap(pipeline), layers=[0, 3], kv_memory="device")
    source = editor.generate(SOURCE, seed=1, num_steps=20, guidance_scale=3.5)
    with sf.inject(pipeline, source=source, layers=[0, 3]) as start:
        pipeline(EDIT, latents=start.latents, num_inference_steps=20, height=SIZE, width=SIZE)  # every pass is found


def test_other_steps_are_refused(pipeline, source):
    with (
        pytest.raises(InterventionError, match=r"ran a pass at t = .*Run as many steps"),
        sf.inject(pipeline, source=source, layers=[0]) as start,
    ):
        pipeline(EDIT, latents=start.latents, num_inference_steps=STEPS + 1, height=SIZE, width=SIZE)
    assert "forward" not in vars(pipeline.transformer)


def test_a_source_without_a_path_is_refused(pipeline, model):
    picture = torch.rand(3, SIZE, SIZE)
    encoded = EDITORS["sdedit"](model).invert(picture, SOURCE)
    with pytest.raises(InputError, match="only encoded"), sf.inject(pipeline, source=encoded, layers=[0]):
        pass


def test_features_of_a_pipelines_call_are_those_of_the_library(pipeline, source, editor):
    mine, own = sf.Capture([1, 3]), sf.Capture([1, 3])
    with sf.attach(pipeline, mine):
        editor.generate(SOURCE, seed=1, num_steps=STEPS, guidance_scale=3.5)
    with sf.inject(pipeline, source=source, layers=[0]) as start:
        pass
    with sf.attach(pipeline, own):
        drawn(pipeline, start, SOURCE)
    assert len(own.features) == len(mine.features) == 2 * STEPS
    for t in mine.times:
        assert torch.equal(mine.at(3, t), own.at(3, t))


def test_an_error_in_the_block_leaves_no_trace(pipeline):
    with pytest.raises(RuntimeError, match="mine"), sf.attach(pipeline, sf.Capture([0])):
        raise RuntimeError("mine")
    assert "forward" not in vars(pipeline.transformer)
    assert not pipeline.transformer.transformer_blocks[0]._forward_hooks


def test_flux2_and_a_family_whose_calls_do_not_tell():
    host = FAMILIES["FLUX.2-dev"].make()
    editor = sf.StableFlow(sf.wrap(host), layers=[0, 2], kv_memory="device")
    square = {"height": SIZE, "width": SIZE}
    source = editor.generate(SOURCE, seed=1, num_steps=STEPS, guidance_scale=4.0, **square)
    with sf.inject(host, source=source, layers=[0, 2]) as start:
        tokens = host(
            prompt=EDIT, latents=start.latents, num_inference_steps=STEPS, height=SIZE, width=SIZE, guidance_scale=4.0,
            output_type="latent",
        ).images  # fmt: skip
    expected = editor.edit(source, EDIT).latents
    assert torch.equal(unpack(tokens, rows=expected.shape[-2], patch=1), expected)
    other = FAMILIES["Qwen-Image"].make()
    drawn_there = sf.StableFlow(sf.wrap(other), layers=[0]).generate(SOURCE, seed=1, num_steps=2, **square)
    with (
        pytest.raises(InterventionError, match="cannot be followed"),
        sf.inject(other, source=drawn_there, layers=[0]),
    ):
        pass
