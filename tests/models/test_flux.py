"""The FLUX family equals diffusers' own pipeline, bit for bit in float32 on the CPU."""

import pytest
import torch
from tiny_flux import NUM_LAYERS, SIZE, tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, InterventionError
from stableflow.models.prompts import PromptWarning

PROMPTS = ["a red dog", "a blue cat on the grass"]


def noise(model, height=SIZE, width=SIZE, rows=1, seed=0):
    return torch.randn(rows, *model.latent_shape(height, width), generator=torch.Generator().manual_seed(seed))


def sample_with_diffusers(pipeline, latents, **arguments):
    batch, channels, height, width = latents.shape
    packed = pipeline._pack_latents(latents, batch, channels, height, width)
    size = {"height": height * pipeline.vae_scale_factor, "width": width * pipeline.vae_scale_factor}
    out = pipeline(latents=packed, output_type="latent", max_sequence_length=512, **size, **arguments).images
    return pipeline._unpack_latents(out, size["height"], size["width"], pipeline.vae_scale_factor)


@pytest.mark.parametrize("size", [(SIZE, SIZE), (SIZE, 2 * SIZE), (24, 12)])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_sampling_equals_the_pipeline_from_prompts(pipeline, model, size, num_steps):
    latents = noise(model, *size)
    expected = sample_with_diffusers(
        pipeline, latents, prompt=PROMPTS[0], num_inference_steps=num_steps, guidance_scale=2.5
    )
    source = sf.StableFlow(model, layers=[]).generate(
        PROMPTS[0], latents=latents, num_steps=num_steps, guidance_scale=2.5, height=size[0], width=size[1]
    )
    assert (source.latents - expected).abs().max() == 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_sampling_equals_the_pipeline_with_any_number_of_threads(pipeline, model, threads):
    before, latents = torch.get_num_threads(), noise(model, 32, 32)
    try:
        torch.set_num_threads(threads)
        expected = sample_with_diffusers(pipeline, latents, prompt=PROMPTS[0], num_inference_steps=3)
        source = sf.StableFlow(model, layers=[]).generate(PROMPTS[0], latents=latents, num_steps=3, height=32, width=32)
    finally:
        torch.set_num_threads(before)
    assert (source.latents - expected).abs().max() == 0.0


def test_sampling_equals_the_pipeline_from_embeddings(pipeline, model):
    latents, conditioning = noise(model), model.encode_prompt(PROMPTS[:1])
    expected = sample_with_diffusers(
        pipeline,
        latents,
        prompt_embeds=conditioning.tensors["encoder_hidden_states"],
        pooled_prompt_embeds=conditioning.tensors["pooled_projections"],
        num_inference_steps=4,
    )
    source = sf.StableFlow(model, layers=[]).generate(conditioning, latents=latents, num_steps=4)
    assert (source.latents - expected).abs().max() == 0.0


def test_a_seed_gives_the_noise_that_diffusers_draws(pipeline, model):
    expected = pipeline(
        PROMPTS[0],
        height=SIZE,
        width=SIZE,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    source = sf.StableFlow(model, layers=[]).generate(PROMPTS[0], seed=7, num_steps=3)
    assert (source.images - expected).abs().max() == 0.0


def test_editing_without_layers_equals_the_pipeline(pipeline, model):
    """No vital layer: the edit is plain sampling of the edited prompt from the source's noise."""
    editor, latents = sf.StableFlow(model, layers=[]), noise(model)
    result = editor.edit(editor.generate(PROMPTS[0], latents=latents, num_steps=5), PROMPTS[1])
    expected = sample_with_diffusers(pipeline, latents, prompt=PROMPTS[1], num_inference_steps=5, guidance_scale=3.5)
    assert (result.latents - expected).abs().max() == 0.0


def test_models_without_guidance_take_none():
    pipeline = tiny_flux_pipeline(guidance_embeds=False)
    model = sf.wrap(pipeline, name="schnell-like")
    assert model.default_guidance_scale is None
    latents = noise(model)
    expected = sample_with_diffusers(pipeline, latents, prompt=PROMPTS[0], num_inference_steps=4, guidance_scale=0.0)
    editor = sf.StableFlow(model, layers=[])
    assert (editor.generate(PROMPTS[0], latents=latents, num_steps=4).latents - expected).abs().max() == 0.0
    with pytest.warns(UserWarning, match="takes no guidance scale"):
        editor.generate(PROMPTS[0], latents=latents, num_steps=1, guidance_scale=3.5)


@pytest.mark.parametrize("dynamic_shift", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (32, 64)])
def test_the_time_grid_is_the_schedulers_own(dynamic_shift, size):
    pipeline = tiny_flux_pipeline(dynamic_shift=dynamic_shift)
    before = pipeline.scheduler.sigmas.clone()
    grid = sf.wrap(pipeline, name="x").time_grid(6, *size)
    assert torch.equal(pipeline.scheduler.sigmas, before), "the pipeline's own scheduler must stay untouched"
    pipeline("a dog", height=size[0], width=size[1], num_inference_steps=6, output_type="latent")
    assert grid.times == tuple(pipeline.scheduler.sigmas.tolist())
    assert grid.times[0] == 1.0 and grid.times[-1] == 0.0


@pytest.mark.parametrize("text_tokens", [512, 256, 37, 5])
def test_text_lengths(pipeline, text_tokens):
    model = sf.wrap(pipeline, name="x", max_sequence_length=text_tokens)
    conditioning, latents = model.encode_prompt(["a dog"]), noise(model)
    assert conditioning.tensors["encoder_hidden_states"].shape[1] == text_tokens
    packed = pipeline._pack_latents(latents, 1, *latents.shape[1:])
    expected = pipeline(
        "a dog", latents=packed, max_sequence_length=text_tokens, height=SIZE, width=SIZE, num_inference_steps=2,
        output_type="latent",
    ).images  # fmt: skip
    source = sf.StableFlow(model, layers=[]).generate("a dog", latents=latents, num_steps=2)
    assert torch.equal(pipeline._pack_latents(source.latents, 1, *latents.shape[1:]), expected)


@pytest.mark.parametrize("text_tokens", [512, 9])
def test_the_token_layout_by_permuting_image_tokens(pipeline, text_tokens):
    """What the hooks see as image tokens must be the projection of the image tokens: all of them and nothing else."""
    model = sf.wrap(pipeline, name="x", max_sequence_length=text_tokens)
    conditioning = model.encode_prompt(["a dog"])
    seen = {}

    class Watch:
        def hooks(self, layers):
            def keep(index):
                def function(forward, features):
                    seen[index] = features.clone()

                return function

            return [sf.models.base.ProjectionHook(layer, "key", keep(layer.index)) for layer in layers]

    inputs = {}
    handles = [
        layer.block.register_forward_pre_hook(
            lambda module, args, kwargs, i=layer.index: inputs.update({i: kwargs}), with_kwargs=True
        )
        for layer in model.layers
    ]
    with model.attach(Watch()):
        model.velocity(noise(model), 0.7, conditioning, guidance_scale=3.0)
    for handle in handles:
        handle.remove()
    for layer in model.layers:
        kwargs = inputs[layer.index]
        image, text, temb = kwargs["hidden_states"], kwargs["encoder_hidden_states"], kwargs["temb"]
        assert text.shape[1] == text_tokens
        if layer.kind == "double":
            normed = layer.block.norm1(image, emb=temb)[0]
        else:
            normed = layer.block.norm(image, emb=temb)[0]
        assert torch.allclose(seen[layer.index], layer.block.attn.to_k(normed), atol=1e-5)


def test_layers_are_in_execution_order(model, pipeline):
    order, expected = [], [layer.index for layer in model.layers]
    handles = [layer.block.register_forward_hook(lambda *_, i=layer.index: order.append(i)) for layer in model.layers]
    model.velocity(noise(model), 0.5, model.encode_prompt(["a dog"]), guidance_scale=1.0)
    for handle in handles:
        handle.remove()
    assert order == expected == list(range(NUM_LAYERS))
    assert [layer.kind for layer in model.layers] == ["double"] * 2 + ["single"] * 3


def test_guidance_is_per_row(model):
    conditioning = model.encode_prompt(["a dog", "a dog"])
    latents = noise(model).expand(2, -1, -1, -1)
    mixed = model.velocity(latents, 0.6, conditioning, guidance_scale=[1.0, 5.0])
    for row, scale in enumerate([1.0, 5.0]):
        alone = model.velocity(latents, 0.6, conditioning, guidance_scale=scale)
        assert torch.equal(mixed[row], alone[row])
    assert (mixed[0] - mixed[1]).abs().max() > 1e-3
    with pytest.raises(InputError, match="3 values for 2 rows"):
        model.velocity(latents, 0.6, conditioning, guidance_scale=[1.0, 2.0, 3.0])


def test_a_prompt_alone_equals_the_same_prompt_in_a_batch(model):
    latents = noise(model, rows=2)
    both = model.velocity(latents, 0.4, model.encode_prompt(PROMPTS), guidance_scale=3.0)
    for row, prompt in enumerate(PROMPTS):
        alone = model.velocity(latents[row : row + 1], 0.4, model.encode_prompt([prompt]), guidance_scale=3.0)
        assert (both[row] - alone[0]).abs().max() < 1e-5


def test_encode_is_the_mean_and_decode_its_way_back(model, pipeline):
    images = torch.rand(1, 3, SIZE, SIZE)
    latents = model.encode_image(images)
    assert torch.equal(latents, model.encode_image(images)), "no sampling"
    mean = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
    assert torch.allclose(latents, (mean - 0.1) * 0.7, atol=1e-6)
    decoded = pipeline.vae.decode(mean).sample / 2 + 0.5
    assert torch.allclose(model.decode_latents(latents), decoded.clamp(0, 1), atol=1e-5)


def test_bf16_runs_finite():
    pipeline = tiny_flux_pipeline().to(dtype=torch.bfloat16)
    editor = sf.StableFlow(sf.wrap(pipeline, name="bf16"), layers=[0, 4])
    source = editor.generate(PROMPTS[0], seed=0, num_steps=3)
    assert source.latents.dtype == torch.float32
    assert editor.edit(source, PROMPTS[1]).latents.isfinite().all()


def test_fused_projections_are_refused(own_pipeline):
    own_pipeline.transformer.fuse_qkv_projections()
    model = sf.wrap(own_pipeline, name="fused")
    with pytest.raises(InterventionError, match="unfuse_qkv_projections"):
        sf.StableFlow(model, layers=[1]).generate("a dog", seed=0, num_steps=1)


def test_stochastic_schedulers_are_refused(own_pipeline):
    own_pipeline.scheduler.register_to_config(stochastic_sampling=True)
    with pytest.raises(InputError, match="stochastic_sampling"):
        sf.wrap(own_pipeline, name="x")


def test_sizes_and_steps_are_checked(model):
    editor = sf.StableFlow(model, layers=[])
    with pytest.raises(InputError, match="multiples of 4.*16x20"):
        editor.generate("a dog", height=17, width=19)
    with pytest.raises(InputError, match=r"num_steps must lie in \[1, 10000\], got -3"):
        editor.generate("a dog", num_steps=-3)
    for scale in (float("nan"), float("inf"), -1.0):
        with pytest.raises(InputError, match="guidance_scale must"):
            editor.generate("a dog", guidance_scale=scale)


def test_lost_text_is_named(model, pipeline):
    short = sf.wrap(pipeline, name="x", max_sequence_length=4)
    with pytest.warns(PromptWarning, match="cut off was 'on the grass'"):
        short.encode_prompt(["a red dog on the grass"])
    with pytest.warns(PromptWarning, match="does not know 'giraffe'.*It knows: a, blue, car"):
        model.encode_prompt(["a red giraffe"])


def test_the_checkpoint_hash_follows_the_weights(own_pipeline):
    model = sf.wrap(own_pipeline, name="x")
    before = model.checkpoint_hash()
    assert before == sf.wrap(tiny_flux_pipeline(), name="y").checkpoint_hash()
    assert before != sf.wrap(tiny_flux_pipeline(seed=1), name="x").checkpoint_hash()
    own_pipeline.transformer.proj_out.weight.data[0, 0] += 1
    assert model.checkpoint_hash() != before
