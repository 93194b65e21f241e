"""The bundled model: it loads everywhere, repeats itself, and has something to show."""

import json

import numpy as np
import pytest
import torch
from transformers import CLIPModel, Dinov2Model

import stableflow as sf
from stableflow.benchmarks.datasets.scenes import load_scenes
from stableflow.benchmarks.judges import SceneJudge
from stableflow.benchmarks.run import Benchmark
from stableflow.benchmarks.settings import layers
from stableflow.benchmarks.summary import summarise
from stableflow.flow.integrate import integrate
from stableflow.flow.inversion import AlignedReplay
from stableflow.metrics import Clip, Dino, DinoCls
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path
from stableflow.models.prompts import PromptWarning
from stableflow.scenes import caption, edit, render, vocabulary
from stableflow.training.evaluate import caption_accuracy, held_out_scenes
from stableflow.vital.choice import parse_choice
from stableflow.vital.presets import find_preset
from stableflow.vital.protocol import Protocol


@pytest.fixture(scope="module")
def tiny():
    return sf.load("tiny")


@pytest.fixture(scope="module")
def classifier():
    return AttributeClassifier.load(bundled_path("classifier"))


def test_it_is_a_stock_pipeline(tiny):
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(bundled_path("tiny"))
    pipeline.set_progress_bar_config(disable=True)
    prompt, length = "a red dog on the grass", tiny.max_sequence_length
    expected = pipeline(
        prompt, height=64, width=64, num_inference_steps=15, guidance_scale=3.5, max_sequence_length=length,
        generator=torch.Generator().manual_seed(3), output_type="pt",
    ).images  # fmt: skip
    source = sf.StableFlow(tiny).generate(prompt, seed=3)
    assert (source.images - expected).abs().max() == 0.0


def test_the_same_seed_draws_the_same_picture(tiny):
    first, second = (sf.StableFlow(model).generate("a cat", seed=5).images for model in (tiny, sf.load("tiny")))
    assert torch.equal(first, second)


def test_its_vital_layers_were_measured_on_these_weights(tiny, recwarn):
    preset = find_preset(tiny)
    assert preset.checkpoint == tiny.checkpoint_hash() and preset.num_layers == len(tiny.layers)
    assert not [warning for warning in recwarn if "measured without" in str(warning.message)]


def test_vital_layers_stand_out(tiny):
    """Measured again on other prompts and seeds, the quick way, the preset is found again."""
    preset = find_preset(tiny)
    vitality = sf.measure_vitality(
        tiny,
        ["a red dog", "a cat on the beach", "a white bird at night", "a dog wearing a blue hat next to a tree"],
        protocol=Protocol(num_steps=4, first_seed=100),
        similarity="dino_cls",
        encoder=preset.encoder,
        choice=parse_choice(preset.choice),
    )
    assert vitality.chosen == preset.layers


def test_the_encoders_are_stock_transformers_models(tiny):
    """They load with transformers, and see what they must: the right caption, and how far an edit goes."""
    assert CLIPModel.from_pretrained(bundled_path("clip")).config.vision_config.image_size == 64
    assert Dinov2Model.from_pretrained(bundled_path("dinov2")).config.num_hidden_layers == 4
    clip, dino = Clip.load(bundled_path("clip")), Dino.load(bundled_path("dinov2"))
    scenes = held_out_scenes(24)
    texts = [caption(scene) for scene in scenes]
    images = torch.stack([render(scene) for scene in scenes])
    best = (clip.embed_images(images) @ clip.embed_texts(texts).T).argmax(1).tolist()
    assert sum(texts[found] == texts[i] for i, found in enumerate(best)) >= 20
    moved = torch.stack([render(edit(scene, hat="red" if scene.hat != "red" else "blue")) for scene in scenes])
    near, far = DinoCls(dino)(images, moved), DinoCls(dino)(images, images.roll(1, 0))
    assert near.mean() > far.mean() + 0.2


def test_unknown_words_list_the_vocabulary(tiny):
    with pytest.warns(PromptWarning, match="does not know 'giraffe'.*It knows: a, at, ball"):
        tiny.encode_prompt(["a red giraffe"])
    assert len(vocabulary()) == 43


def test_captions_are_obeyed(tiny, classifier):
    """A floor under the figures of the model card, on few pictures."""
    accuracy = caption_accuracy(tiny, classifier, held_out_scenes(40))
    assert np.mean(list(accuracy.values())) > 0.8, accuracy


def test_plain_reprompting_loses_the_source_and_injection_keeps_more(tiny, classifier):
    """The main trap: without this gap the bundled model would have nothing to show."""
    cases, edits = load_scenes(32, real=False)
    benchmark = Benchmark(tiny, "scenes", cases, layers(tiny)[:2], [SceneJudge(edits, classifier)])
    benchmark.run()
    kept = summarise(benchmark.records())
    assert kept["none"]["hidden_kept"].mean < 0.85
    assert kept["vital"]["hidden_kept"].mean > kept["none"]["hidden_kept"].mean
    assert kept["vital"]["psnr"].mean > kept["none"]["psnr"].mean + 1


def test_a_real_picture_comes_back(tiny):
    scene = held_out_scenes(1)[0]
    picture = render(scene)
    source = sf.StableFlow(tiny).invert(picture, "a bird")
    replayed = integrate(
        lambda z, t: tiny.velocity(z, t, source.conditioning, guidance_scale=1.0),
        source.noise,
        source.grid,
        AlignedReplay(source.offsets),
    )
    latents = replayed / source.fingerprint.nudge_scale
    assert (latents - source.latents).abs().max() <= 1e-4
    autoencoder = tiny.decode_latents(tiny.encode_image(picture[None]))
    psnr = lambda images: float(-10 * (images - picture[None]).square().mean().log10())  # noqa: E731
    reconstructed = psnr(tiny.decode_latents(latents))  # of the replay, not of the latents that were stored
    assert reconstructed >= 28 and abs(reconstructed - psnr(autoencoder)) <= 0.1


def test_the_weights_are_small():
    size = sum(path.stat().st_size for path in bundled_path("").rglob("*") if path.is_file())
    assert size < 60e6
    index = json.loads((bundled_path("tiny") / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"
