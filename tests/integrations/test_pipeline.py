"""The pipeline shaped as diffusers' own: its edits are the library's to the last bit, its manners diffusers'."""

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from families import FAMILIES
from PIL import Image
from tiny_flux import SIZE, tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, UnknownNameError
from stableflow.images import to_pil

SOURCE, EDIT, OTHER = "a red dog standing on the grass", "a blue dog standing on the snow", "a red cat on the grass"
STEPS, LAYERS = 3, [0, 2, 3]
QUICK = {"num_inference_steps": STEPS, "layers": LAYERS}


@pytest.fixture(scope="module")
def pipe(pipeline):
    made = sf.StableFlowPipeline.from_pipe(pipeline)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def editor(model):
    return sf.StableFlow(model, layers=LAYERS)


@pytest.fixture(scope="module")
def picture():
    return to_pil(torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def latents_of(output):
    return torch.cat([result.latents for result in output.results])


def test_a_drawn_source(pipe, editor):
    output = pipe(prompt=[EDIT, OTHER], source_prompt=SOURCE, generator=seeded(1), guidance_scale=3.0, **QUICK)
    source = editor.generate(SOURCE, seed=1, num_steps=STEPS, guidance_scale=3.0)
    expected = editor.edit(source, [EDIT, OTHER])
    assert torch.equal(latents_of(output), expected.latents)
    assert [np.array(image).tolist() for image in output.images] == [
        np.array(to_pil(image)).tolist() for image in expected.images
    ]


@pytest.mark.parametrize("settings", [{}, {"strength": 0.6}, {"region": "box:0,0,8,8"}], ids=str)
def test_a_picture(pipe, editor, picture, settings):
    output = pipe(picture, EDIT, SOURCE, **QUICK, **settings)
    region = settings.get("region")
    expected = editor.edit(
        editor.invert(picture, SOURCE, num_steps=STEPS), EDIT, region=region, strength=settings.get("strength")
    )
    assert torch.equal(latents_of(output), expected.latents)
    again = pipe(prompt=EDIT, source=output.sources[0], **QUICK, **settings)
    assert torch.equal(latents_of(again), expected.latents)


def test_another_editor(pipe, model, picture):
    from stableflow.editing import EDITORS

    output = pipe(picture, EDIT, SOURCE, editor="sdedit", num_inference_steps=STEPS, generator=seeded(5), strength=0.7)
    sdedit = EDITORS["sdedit"](model, num_steps=STEPS, seed=5, strength=0.7)
    assert torch.equal(latents_of(output), sdedit.edit(sdedit.invert(picture, SOURCE), EDIT).latents)


def test_generators_and_images_per_prompt(pipe):
    """One generator goes on from picture to picture, a list has one a picture; prompts come first, as in diffusers."""
    one = pipe(
        prompt=[EDIT, OTHER], source_prompt=SOURCE, generator=seeded(1), num_images_per_prompt=2, output_type="pt",
        **QUICK,
    ).images  # fmt: skip
    noise = seeded(1)
    torch.randn(1, 4, SIZE // 2, SIZE // 2, generator=noise)  # of the first picture
    second = seeded(0)
    second.set_state(noise.get_state())
    first = seeded(1)
    several = pipe(
        prompt=[EDIT, OTHER], source_prompt=SOURCE, num_images_per_prompt=2, output_type="pt",
        generator=[first, second, seeded(1), seeded(7)], **QUICK,
    ).images  # fmt: skip
    assert one.shape == several.shape == (4, 3, SIZE, SIZE)
    assert torch.allclose(one[:3], several[:3], atol=1e-6) and not torch.allclose(one[3], several[3], atol=1e-3)


def test_noise_may_be_given_packed_or_not(pipe, pipeline):
    noise = torch.randn(1, 4, SIZE // 2, SIZE // 2, generator=seeded(1))
    packed = pipeline._pack_latents(noise, 1, 4, SIZE // 2, SIZE // 2)
    outputs = [
        pipe(prompt=EDIT, source_prompt=SOURCE, output_type="latent", **QUICK, **given).images
        for given in ({"latents": noise}, {"latents": packed}, {"generator": seeded(1)})
    ]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_output_types_are_diffusers(pipe, pipeline, picture):
    tokens, array, tensor, images = (
        pipe(picture, EDIT, SOURCE, output_type=kind, **QUICK).images for kind in ("latent", "np", "pt", "pil")
    )
    own = pipeline.image_processor
    vae = pipeline.vae
    latents = pipeline._unpack_latents(tokens, SIZE, SIZE, pipeline.vae_scale_factor)
    with torch.no_grad():
        decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    assert torch.allclose(own.postprocess(decoded, output_type="pt"), tensor, atol=1e-6)
    assert array.shape == (1, SIZE, SIZE, 3) and np.allclose(array, own.pt_to_numpy(tensor))
    assert np.array_equal(np.array(images[0]), np.array(own.numpy_to_pil(array)[0]))
    assert isinstance(pipe(picture, EDIT, SOURCE, return_dict=False, **QUICK)[0][0], Image.Image)


def test_callbacks_see_every_step_and_cannot_steer(pipe, picture):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append((pipeline is pipe, step, float(timestep), tensors["latents"].shape))
        return tensors

    pipe(picture, EDIT, SOURCE, callback_on_step_end=callback, **QUICK)
    assert [step for _, step, _, _ in seen] == list(range(STEPS)) and seen[0][::2] == (True, 1000.0)
    assert all(shape == (1, 16, 16) for *_, shape in seen)  # packed, as FLUX keeps them
    with pytest.raises(InputError, match="cannot steer"):
        pipe(picture, EDIT, SOURCE, callback_on_step_end=lambda *a: {"latents": 2 * a[-1]["latents"]}, **QUICK)
    with pytest.raises(InputError, match="show latents only"):
        pipe(picture, EDIT, SOURCE, callback_on_step_end=callback,
             callback_on_step_end_tensor_inputs=["prompt_embeds"], **QUICK)  # fmt: skip


def test_a_call_can_be_interrupted(pipe, picture):
    steps = []

    def stop(pipeline, step, timestep, tensors):
        steps.append(step)
        pipeline._interrupt = step == 1
        return tensors

    output = pipe(picture, [EDIT, OTHER], SOURCE, callback_on_step_end=stop, **QUICK)
    assert steps == [0, 1] and len(output.images) == 2 and output.results == []
    assert len(pipe(picture, EDIT, SOURCE, **QUICK).images) == 1  # nothing is left attached


def test_the_progress_bar_is_diffusers(pipe, picture, capsys):
    pipe.set_progress_bar_config(disable=False, desc="mine")
    pipe(picture, EDIT, SOURCE, **QUICK)
    pipe.set_progress_bar_config(disable=True)
    assert capsys.readouterr().err.count(f"mine: 100%|██████████| {STEPS}/{STEPS}") >= 2


def test_saved_and_loaded(pipe, picture, tmp_path):
    """Saved as the plain pipeline that it is; loaded by diffusers, by us, with its parts."""
    pipe.save_pretrained(tmp_path)
    assert type(FluxPipeline.from_pretrained(tmp_path)) is FluxPipeline
    loaded = sf.StableFlowPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded, FluxPipeline) and isinstance(loaded, sf.StableFlowPipeline)
    outputs = [latents_of(made(picture, EDIT, SOURCE, **QUICK)) for made in (pipe, loaded)]
    assert torch.equal(*outputs)


def test_offloaded_by_groups(editor, picture):
    own = sf.StableFlowPipeline.from_pipe(tiny_flux_pipeline())
    own.set_progress_bar_config(disable=True)
    own.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
    )
    expected = editor.edit(editor.invert(picture, SOURCE, num_steps=STEPS), EDIT)
    assert torch.equal(latents_of(own(picture, EDIT, SOURCE, **QUICK)), expected.latents)


@pytest.mark.parametrize("name", ["Qwen-Image", "SD3", "Z-Image", "FLUX.2-dev"])
def test_other_families(name, picture):
    host = FAMILIES[name].make()
    pipe = sf.StableFlowPipeline.from_pipe(host)
    pipe.set_progress_bar_config(disable=True)
    editor = sf.StableFlow(sf.wrap(host), layers=[0, 1])
    output = pipe(picture, EDIT, SOURCE, num_inference_steps=2, layers=[0, 1])
    assert torch.equal(latents_of(output), editor.edit(editor.invert(picture, SOURCE, num_steps=2), EDIT).latents)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": None}, "prompt is missing"),
        ({"source_prompt": None}, "source_prompt is missing"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"generator": [torch.Generator()] * 3}, "3 generators were given for 1 pictures"),
        ({"num_images_per_prompt": 2}, "draws no noise"),
        ({"editor_kwargs": {"wings": 2}}, "wings"),
        ({"mask_image": "mask.png", "region": "box:0,0,8,8"}, "not both"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_refused(pipe, picture, settings, message):
    with pytest.raises((InputError, UnknownNameError), match=message):
        pipe(**{"image": picture, "prompt": EDIT, "source_prompt": SOURCE, **QUICK, **settings})


def test_a_host_of_no_family_is_refused():
    class Unknown:
        pass

    with pytest.raises(UnknownNameError, match="pipeline class"):
        sf.StableFlowPipeline.from_pipe(Unknown())
