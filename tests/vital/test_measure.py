"""Measuring vitality: equal to single bypasses, resumable to the last digit, refused when it cannot be right."""

import dataclasses
import json

import pytest
import torch
from tiny_flux import NUM_LAYERS, SIZE

import stableflow as sf
from stableflow.errors import InputError, LoadError
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.interventions import Bypass
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.jobs.run import Shard
from stableflow.vital.choice import Gap, Threshold, Top, parse_choice
from stableflow.vital.compare import jaccard, rank_correlation
from stableflow.vital.measure import Measurer, VitalityJob, measured_size, roughness
from stableflow.vital.prompt_sets import PROMPT_SETS, prompt_set, read_prompts
from stableflow.vital.protocol import Protocol
from stableflow.vital.racing import undecided
from stableflow.vital.similarity import SIMILARITIES, Drawn, Similarity
from stableflow.vital.vitality import Vitality
from stableflow.vital.windows import measure_windows, split_times

PROMPTS = ("a red dog", "a blue cat", "a dog on the grass", "a red car")
QUICK = Protocol(num_steps=3, first_seed=5)


def job(model, *, folder=None, protocol=QUICK, choice=Gap(), prompts=PROMPTS):
    return VitalityJob(model, prompts, protocol, [SIMILARITIES["pixels"]("")], choice=choice, folder=folder)


def test_a_score_is_that_of_the_layer_bypassed_from_the_same_noise(model):
    vitality = sf.measure_vitality(model, PROMPTS, num_steps=3, first_seed=5, similarity="pixels")
    noise = torch.randn(1, *model.latent_shape(*model.default_size), generator=torch.Generator().manual_seed(6))
    conditioning = model.encode_prompt([PROMPTS[1]])

    def draw(layers):
        with model.attach(Bypass(layers)):
            latents = integrate(
                lambda z, t: model.velocity(z, t, conditioning, guidance_scale=3.5),
                noise,
                model.time_grid(3, *model.default_size),
                Euler(),
            )
        return model.decode_latents(latents)

    for layer in range(NUM_LAYERS):
        expected = (draw([layer]) - draw([])).square().mean().sqrt()
        assert vitality.scores[layer, 1] == pytest.approx(expected.item(), abs=1e-6) and expected > 1e-3
    assert vitality.passes == (NUM_LAYERS + 1) * len(PROMPTS) * 3
    assert vitality.kinds == ("double", "double", "single", "single", "single")


@pytest.mark.parametrize("layer", range(NUM_LAYERS))
def test_a_bypassed_picture_is_that_of_the_plain_pipeline_with_an_identity_block(own_pipeline, layer):
    """Drawn by diffusers' own FluxPipeline, whose block hands both streams on."""
    model = sf.wrap(own_pipeline, name="random-flux")
    ours = Measurer(model, PROMPTS, QUICK, []).draw((1,), (layer,), WHOLE_FLOW)
    transformer = own_pipeline.transformer
    block = [*transformer.transformer_blocks, *transformer.single_transformer_blocks][layer]
    block.forward = lambda hidden_states, encoder_hidden_states, **rest: (encoder_hidden_states, hidden_states)
    noise = torch.randn(1, *model.latent_shape(SIZE, SIZE), generator=torch.Generator().manual_seed(6))
    drawn = own_pipeline(
        PROMPTS[1],
        latents=own_pipeline._pack_latents(noise, *noise.shape),
        height=SIZE,
        width=SIZE,
        num_inference_steps=3,
        guidance_scale=3.5,
        output_type="pt",
    ).images
    assert (ours.images - drawn).abs().max() == 0.0


def test_intervals_and_stability():
    generator = torch.Generator().manual_seed(0)
    spread = 0.1 * torch.randn(4, 400, generator=generator)
    scores = spread + torch.tensor([0.9, 0.2, 0.21, 0.5])[:, None]
    vitality = Vitality({"x": scores}, "c", choice=Threshold(0.205))
    low, high = vitality.interval()
    assert torch.allclose((high - low) / 2, torch.full((4,), 1.96 * 0.1 / 20), rtol=0.15)  # of a mean of 400
    stability = vitality.stability()
    assert stability[0] == 1 and stability[3] == 1 and 0.02 < stability[1] < 0.98
    assert vitality.chosen == vitality.above(0.205) and vitality.top(2) == (0, 3)


def test_choices():
    vitality = torch.tensor([0.5, 0.1, 0.45, 0.12, 0.11, 0.2])
    assert Vitality({"x": vitality[:, None]}, "c").chosen == (0, 2)
    assert Top(3).boundary(vitality) == pytest.approx(0.16) and Threshold(0.3).boundary(vitality) == 0.3
    for text in ("gap", "top:9", "threshold:0.2"):
        assert str(parse_choice(text)) == text
    for text in ("best", "top:", "threshold:x"):
        with pytest.raises(InputError, match="gap, top:COUNT or threshold:VALUE"):
            parse_choice(text)


def test_save_and_load(model, tmp_path):
    vitality = job(model).result()  # nothing measured yet
    with pytest.raises(LoadError, match="no vitality file"):
        Vitality.load(tmp_path / "missing.json")
    measured = job(model)
    measured.run()
    vitality = measured.result()
    vitality.save(tmp_path / "v.json")
    again = Vitality.load(tmp_path / "v.json")
    assert torch.equal(again.scores, vitality.scores) and again.chosen == vitality.chosen
    assert again.protocol == json.loads(json.dumps(vitality.protocol)) and again.prompts == PROMPTS


def test_shards_make_the_whole(model, tmp_path):
    whole = job(model)
    assert whole.run()
    assert not job(model, folder=tmp_path).run(shard=Shard(1, 2))
    part = job(model, folder=tmp_path)
    assert part.run(shard=Shard(2, 2))
    assert torch.equal(part.result().scores, whole.result().scores)
    for text in ("3/2", "0/2", "a/b"):
        with pytest.raises(InputError):
            Shard.parse(text)
    with pytest.raises(InputError, match="cannot be sharded"):
        job(model, protocol=Protocol(racing=True)).run(shard=Shard(1, 2))


def test_a_folder_belongs_to_one_measurement(model, tmp_path):
    job(model, folder=tmp_path)
    with pytest.raises(InputError, match="num_steps is 3 there and 4 here"):
        job(model, folder=tmp_path, protocol=dataclasses.replace(QUICK, num_steps=4))


def test_racing_finds_the_set_of_the_exact_protocol_with_fewer_passes(model):
    prompts = PROMPTS * 4
    batched = dataclasses.replace(QUICK, batch=4, num_steps=2)
    exact = job(model, prompts=prompts, choice=Top(1), protocol=batched)
    exact.run()
    racing = job(model, prompts=prompts, choice=Top(1), protocol=dataclasses.replace(batched, racing=True))
    racing.run()
    assert racing.result().chosen == exact.result().chosen
    assert racing.result().passes < 0.8 * exact.result().passes


def test_a_race_goes_on_with_what_is_close_to_the_boundary():
    generator = torch.Generator().manual_seed(0)
    scores = 0.05 * torch.randn(3, 9, generator=generator) + torch.tensor([0.9, 0.52, 0.1])[:, None]
    assert undecided(scores, Threshold(0.5), 0.95) == [1]
    scores[2, 3:] = float("nan")
    assert undecided(scores, Threshold(0.5), 0.95) == [1]


def test_windows_add_nothing_where_there_is_one(model):
    measured = job(model, protocol=dataclasses.replace(QUICK, batch=4))
    measured.run()
    one, two = measure_windows(measured, 1), measure_windows(measured, 2)
    assert torch.allclose(one[:, 0], measured.result().mean, atol=1e-6)
    assert two.shape == (NUM_LAYERS, 2) and (two < one + 0.05).all() and not torch.equal(two[:, 0], two[:, 1])
    grid = model.time_grid(3, *model.default_size)
    assert split_times(grid, 3) == [(t, t) for t in grid.times[:-1]]
    with pytest.raises(InputError, match="1 to 3 windows"):
        split_times(grid, 4)


def test_what_is_not_finite_is_flagged_and_not_dropped(own_pipeline):
    """A block that gets infinity and makes it finite again: only its own bypass lets infinity through."""
    model, block = sf.wrap(own_pipeline, name="broken"), own_pipeline.transformer.single_transformer_blocks[0]
    block.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "hidden_states": kwargs["hidden_states"] * float("inf")}),
        with_kwargs=True,
    )
    block.register_forward_hook(lambda module, args, output: tuple(torch.zeros_like(x) for x in output))
    vitality = sf.measure_vitality(model, PROMPTS, protocol=Protocol(batch=2, num_steps=2), similarity="pixels")
    assert vitality.flags[2] == "not finite" and "not finite" not in {vitality.flags.get(i) for i in (0, 1, 3, 4)}
    assert (vitality.scores[2] == 1).all() and 2 in vitality.top(1)


def test_noise_is_rough_and_pictures_are_not():
    noise = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, 32)[None, None, None].expand(2, 4, 32, 32)
    assert torch.allclose(roughness(noise), torch.ones(2), atol=0.1) and (roughness(ramp) < 0.05).all()


def test_scaling_stops_at_64_tokens(model, monkeypatch):
    """The random model has 16 pixels, 16 tokens at most: it is never scaled; one of 64x32 tokens is."""
    half = Protocol(scale=0.5)
    assert measured_size(model, half) == model.default_size
    pixels = model.pixel_multiple
    monkeypatch.setattr(type(model), "default_size", property(lambda self: (64 * pixels, 32 * pixels)))
    assert measured_size(model, half) == (32 * pixels, 16 * pixels)
    assert measured_size(model, Protocol(scale=0.01)) == (11 * pixels, 6 * pixels)


def test_comparing():
    a = torch.tensor([0.1, 0.5, 0.3, 0.9])
    assert rank_correlation(a, a * 2 + 1) == pytest.approx(1) and rank_correlation(a, -a) == pytest.approx(-1)
    assert jaccard([1, 2], [2, 3]) == pytest.approx(1 / 3) and jaccard([], []) == 1
    with pytest.raises(InputError, match="same layers"):
        rank_correlation(a, a[:2])


def test_shipped_prompts():
    for name in PROMPT_SETS:
        assert len(prompt_set(name)) == 64
    assert len(set(prompt_set("diverse"))) == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"# only\n\n", "holds no prompt"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a" * 2_000_000, "at most"),
    ],
)
def test_bad_prompt_files(tmp_path, content, message):
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "p.txt")
    with pytest.raises(InputError, match="no prompt file"):
        read_prompts(tmp_path / "missing.txt")


def test_too_few_prompts_and_bad_settings(model):
    for prompts in ([], ["a red dog"]):
        with pytest.raises(InputError, match="at least 2 prompts"):
            sf.measure_vitality(model, prompts)
    for wrong in ({"num_steps": 0}, {"scale": 0.0}, {"prompts": 1}, {"confidence": 1.0}):
        with pytest.raises(InputError):
            Protocol(**wrong)


def test_a_similarity_of_ones_own(model):
    own = Similarity("brightness", lambda a, b: 1 - (a.images.mean((1, 2, 3)) - b.images.mean((1, 2, 3))).abs())
    vitality = sf.measure_vitality(model, PROMPTS[:2], num_steps=2, similarity=[own, "latent_cosine", "latent_rms"])
    assert list(vitality.by_similarity) == ["brightness", "latent_cosine", "latent_rms"]
    assert torch.equal(vitality.using("latent_rms").scores, vitality.by_similarity["latent_rms"])


def test_a_model_without_known_blocks(own_pipeline):
    own_pipeline.transformer.transformer_blocks = torch.nn.ModuleList()
    own_pipeline.transformer.single_transformer_blocks = torch.nn.ModuleList()
    with pytest.raises(InputError, match="no transformer blocks that are known"):
        sf.measure_vitality(sf.wrap(own_pipeline, name="bare"), PROMPTS)


def test_noise_is_flagged(model):
    """The random model draws noise, whatever is bypassed; a smooth picture is not flagged."""
    measured = job(model, prompts=PROMPTS[:2])
    measured.run()
    rough = {
        layer: roughness(measured.measurer.draw((0,), (layer,), WHOLE_FLOW).latents) for layer in range(NUM_LAYERS)
    }
    noisy = {layer for layer, value in rough.items() if value > 0.7}
    assert noisy and noisy <= {layer for layer, flag in measured.result().flags.items() if flag == "noise"}


@pytest.mark.parametrize("name", [name for name in SIMILARITIES if name != "lpips"])
def test_every_similarity_is_one_for_equal_pictures(name):
    compare = SIMILARITIES[name]("tiny-clip" if name == "clip_img" else "tiny-dinov2").compare
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    swapped = images.flip(0)
    drawn, other = (Drawn(pixels.mean(1, keepdim=True), pixels) for pixels in (images, swapped))
    assert compare(drawn, drawn) == pytest.approx([1, 1], abs=1e-5) and (compare(other, drawn) < 0.999).all()


def test_lpips_says_which_weights_it_needs(tmp_path):
    with pytest.raises(LoadError, match=r"trunk\.safetensors"):
        SIMILARITIES["lpips"](str(tmp_path))
