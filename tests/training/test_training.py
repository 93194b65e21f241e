"""The recipe at toy size: repeatable to the last digit, resumable, and equal to diffusers where it must be."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from transformers import T5EncoderModel

from stableflow.errors import LoadError, UnknownNameError
from stableflow.metrics import Clip, Dino
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.scenes import LAYERS, attributes, caption, edit, sample_split
from stableflow.training import start
from stableflow.training.attention import PlainAttention
from stableflow.training.autoencoder import AutoencoderSettings, make_autoencoder, train_autoencoder
from stableflow.training.classifier import heads
from stableflow.training.clip import ClipSettings, contrastive_loss, train_clip
from stableflow.training.data import scene_data
from stableflow.training.dino import DinoSettings, train_dino
from stableflow.training.export import export_pipeline
from stableflow.training.flow import FlowData, FlowSettings, _encode, distil_guidance, encode_all, train_flow
from stableflow.training.network import Network, NetworkSettings, pack, unpack
from stableflow.training.optimiser import Optimisers
from stableflow.training.parallel import World
from stableflow.training.recipe import BUNDLE, RECIPES, _earlier_encoder, run_stage
from stableflow.training.tokens import LENGTHS, TEXT_TOKENS, make_tokenizer, tokenize, words

ALONE = World(0, 1, torch.device("cpu"))
TINY = NetworkSettings(
    latent_channels=4, double_layers=1, single_layers=1, heads=2, axes=(2, 4, 4), text_width=32, text_layers=1
)
SETTINGS = FlowSettings(network=TINY, num_steps=4, distil_steps=2, batch=4)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return FlowData(torch.randn(16, 16, 16, generator=generator), torch.tensor([[tokenize("a red dog")]] * 16))


def weights(network):
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def test_two_runs_are_equal_to_the_last_digit(tmp_path, data):
    first, second = (train_flow(tmp_path / name, data, SETTINGS, ALONE) for name in "ab")
    assert torch.equal(weights(first), weights(second))


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, data):
    half = dataclasses.replace(SETTINGS, num_steps=2, decay_from=1.0)
    rest = dataclasses.replace(SETTINGS, num_steps=4, decay_from=1.0)
    train_flow(tmp_path / "resumed", data, half, ALONE)
    resumed = train_flow(tmp_path / "resumed", data, rest, ALONE)
    uninterrupted = train_flow(tmp_path / "again", data, rest, ALONE)
    assert torch.equal(weights(resumed), weights(uninterrupted))


def test_a_run_killed_between_checkpoints_repeats_its_steps_exactly(tmp_path, data):
    """Whatever a killed run did after its last checkpoint leaves no trace; nor does being given more steps."""
    every_two = dataclasses.replace(SETTINGS, decay_from=0.9, checkpoint_every=2)
    uninterrupted = train_flow(tmp_path / "whole", data, dataclasses.replace(every_two, num_steps=6), ALONE)

    class KilledError(Exception):
        pass

    class Killing(FlowData):
        drawn = 0

        def batch(self, settings, generator, world):
            if (drawn := self.drawn) == 3:
                raise KilledError
            self.drawn = drawn + 1
            return super().batch(settings, generator, world)

    with pytest.raises(KilledError):
        train_flow(
            tmp_path / "killed", Killing(data.latents, data.tokens), dataclasses.replace(every_two, num_steps=5), ALONE
        )
    kept = torch.load(tmp_path / "killed" / "flow.rank0of1.pt", weights_only=True)
    assert kept["step"] == 2
    resumed = train_flow(tmp_path / "killed", data, dataclasses.replace(every_two, num_steps=6), ALONE)
    assert torch.equal(weights(resumed), weights(uninterrupted))


def test_shifted_times_see_more_noise(data):
    generator = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    settings = dataclasses.replace(SETTINGS, batch=64)
    image, noise, t, _ = data.batch(settings, generator(), ALONE)
    shifted_image, shifted_noise, shifted, _ = data.batch(dataclasses.replace(settings, shift=2.0), generator(), ALONE)
    assert torch.equal(image, shifted_image) and torch.equal(noise, shifted_noise)
    signal = lambda time: (1 - time) / time  # noqa: E731
    assert torch.allclose(signal(shifted), signal(t) / 2, rtol=1e-4)


def _in_two_processes(rank, folder):
    """What a process of the recipe does: encode its share; train four steps at once, and in two runs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    drawn = scene_data(folder / "data", count=5, size=32, workers=1)
    latents = encode_all(AutoencoderKL.from_pretrained(folder / "vae").eval(), drawn, folder / "shared.pt", world)
    data, steady = FlowData(latents, drawn.tokens), dataclasses.replace(SETTINGS, decay_from=1.0)
    at_once = train_flow(folder / "at once", data, steady, world)
    train_flow(folder / "in two", data, dataclasses.replace(steady, num_steps=2), world)
    in_two = train_flow(folder / "in two", data, steady, world)
    assert torch.equal(weights(in_two), weights(at_once))
    dist.destroy_process_group()


def test_two_processes_encode_their_shares_in_order_and_resume_to_the_same_weights(tmp_path):
    drawn = scene_data(tmp_path / "data", count=5, size=32, workers=1)
    autoencoder = make_autoencoder(AutoencoderSettings(channels=(8, 8), latent_channels=4), 32).eval()
    autoencoder.save_pretrained(tmp_path / "vae")
    torch.multiprocessing.spawn(_in_two_processes, (tmp_path,), nprocs=2)
    shared = torch.load(tmp_path / "shared.pt", weights_only=True)
    shares = torch.arange(5).tensor_split(2)  # the same batches: in bfloat16 a picture's rounding depends on its batch
    assert torch.equal(shared, torch.cat([_encode(autoencoder, drawn, share, ALONE.device) for share in shares]))
    assert not list(tmp_path.glob("*.part*"))

    longer = dataclasses.replace(SETTINGS, num_steps=5, decay_from=1.0)
    train_flow(tmp_path / "in two", FlowData(shared, drawn.tokens), longer, ALONE)
    assert [path.name for path in (tmp_path / "in two").glob("*.pt")] == ["flow.rank0of1.pt"]
    alone = torch.load(tmp_path / "in two" / "flow.rank0of1.pt", weights_only=True)
    assert alone["step"] == 5


def test_an_optimiser_shared_by_two_goes_over_to_one_and_back():
    network, cpu = Network(TINY), torch.device("cpu")
    one, *two = (Optimisers(network, 1e-3, world) for world in (ALONE, World(0, 2, cpu), World(1, 2, cpu)))
    states = one.state_dict()
    count = len(states[0]["param_groups"][0]["params"])
    states[0]["state"] = {i: {"momentum_buffer": torch.full((1,), float(i))} for i in range(count)}
    shares = [optimisers.regroup([states]) for optimisers in two]
    assert [share[0]["state"][1]["momentum_buffer"].item() for share in shares] == [2, 3]
    assert [share[0]["param_groups"] for share in shares] == [o.state_dict()[0]["param_groups"] for o in two]
    assert one.regroup(shares)[0] == states[0]


def test_distillation_trains_a_copy(tmp_path, data):
    teacher = train_flow(tmp_path, data, SETTINGS, ALONE)
    before = weights(teacher).clone()
    student = distil_guidance(tmp_path, teacher, data, SETTINGS, ALONE)
    assert torch.equal(weights(teacher), before) and not torch.equal(weights(student), before)


def test_going_on_from_an_earlier_world(tmp_path, data, monkeypatch):
    """Weights are taken over; words keep theirs by name though their numbers moved, and new words get none."""
    earlier = Network(TINY)
    autoencoder = make_autoencoder(AutoencoderSettings(channels=(8, 8), latent_channels=4), 32)
    export_pipeline(earlier, autoencoder, tmp_path / "tiny")
    monkeypatch.setattr(start, "words", lambda layers: ["<new>", *reversed(words(layers))])
    network = Network(TINY)
    network.text_encoder_2.resize_token_embeddings(len(words()) + 1)
    before = network.text_encoder_2.shared.weight[0].clone()
    start.adopt(network.text_encoder_2, tmp_path / "tiny/text_encoder_2", tokenizer=tmp_path / "tiny/tokenizer_2")
    start.adopt(network.transformer, tmp_path / "tiny/transformer")
    rows, expected = network.text_encoder_2.shared.weight, earlier.text_encoder_2.shared.weight
    assert torch.equal(rows[1:], expected.flip(0)) and torch.equal(rows[0], before)
    for parameter, stored in zip(network.transformer.parameters(), earlier.transformer.parameters()):
        assert torch.equal(parameter, stored.to(torch.bfloat16).float())
    wider = Network(dataclasses.replace(TINY, axes=(4, 6, 6)))
    with pytest.raises(LoadError, match="here"):
        start.adopt(wider.transformer, tmp_path / "tiny/transformer")


def test_what_is_no_bundle_is_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "clip").mkdir()
    with pytest.raises(LoadError, match="is no bundle: tiny, dinov2 missing"):
        run_stage("flow", folder=tmp_path / "run", start=tmp_path)
    assert not (tmp_path / "run").exists()


def test_an_encoder_of_pictures_of_another_size_is_no_start():
    at_64 = dataclasses.replace(RECIPES["small"], size=64)
    for part in ("clip", "dinov2"):
        assert _earlier_encoder(RECIPES["small"], part) is None
        assert _earlier_encoder(at_64, part) == BUNDLE / part


def test_an_unknown_recipe_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="recipe 'smal'.*Did you mean 'small'"):
        run_stage("draw", model="smal", folder=tmp_path)


def test_plain_attention_equals_diffusers():
    torch.manual_seed(0)
    network = Network(TINY).eval()
    for parameter in network.transformer.parameters():
        if parameter.ndim == 2:
            torch.nn.init.xavier_uniform_(parameter)
    arguments = (torch.randn(2, 16, 16), torch.rand(2), torch.tensor([tokenize("a dog")] * 2), torch.tensor([1.0, 3.0]))
    with torch.no_grad():
        stock = network(*arguments)
        network.use_attention(PlainAttention)
        assert (network(*arguments) - stock).abs().max() < 1e-5
    assert stock.std() > 0.1


def test_packing_is_that_of_flux():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 4, 8, 8))
    assert torch.equal(unpack(pack(latents)), latents)


def test_the_tokenizer_is_what_training_saw():
    for text in ("", "a red dog wearing a blue hat on the grass at night next to a tree"):
        ids = make_tokenizer()(text, padding="max_length", max_length=TEXT_TOKENS).input_ids
        assert ids == tokenize(text) and len(ids) == TEXT_TOKENS


@pytest.mark.parametrize("layers", LAYERS)
def test_the_longest_caption_fits(layers):
    said = {name: values[-1] for name, values in attributes(layers).items()}
    longest = caption(edit(sample_split(0, held=False, layers=layers), **said))
    assert len(longest.split()) == {2: 26, 3: 36}[layers]
    ids = tokenize(longest, layers)
    assert ids.count(1) == 1 and len(ids) == LENGTHS[layers], "the end token is there"
    assert make_tokenizer(layers)(longest, padding="max_length", max_length=LENGTHS[layers]).input_ids == ids


def test_small_starts_from_tiny():
    """Every weight of tiny's is taken over, but for the embeddings of words and places that it does not have."""
    recipe = RECIPES["small"]
    network = Network(recipe.flow.network)
    tiny = recipe.start / "tiny"
    start.adopt(network.transformer, tiny / "transformer")
    start.adopt(network.text_encoder, tiny / "text_encoder", tokenizer=tiny / "tokenizer", layers=3)
    start.adopt(network.text_encoder_2, tiny / "text_encoder_2", tokenizer=tiny / "tokenizer_2", layers=3)
    earlier = T5EncoderModel.from_pretrained(tiny / "text_encoder_2").shared.weight
    row = network.text_encoder_2.shared.weight[words(3).index("snow")]
    assert torch.equal(row, earlier[words(2).index("snow")])
    assert network.transformer.config.num_layers == 4 and recipe.size == 128
    autoencoder = make_autoencoder(recipe.autoencoder, recipe.size)
    start.adopt(autoencoder, tiny / "vae")


def test_the_autoencoder_stage_and_the_export(tmp_path):
    from diffusers import FluxPipeline

    data = scene_data(tmp_path / "data", count=20, size=32, workers=1)
    settings = AutoencoderSettings(channels=(8, 8), latent_channels=4, num_steps=2, batch=2, full_batch=2, crop=16)
    autoencoder = train_autoencoder(tmp_path, data, settings, ALONE)
    latents = autoencoder.encode(data.pixels(torch.arange(8))).latent_dist.mean
    scaled = (latents - autoencoder.config.shift_factor) * autoencoder.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, abs=0.3)
    export_pipeline(Network(TINY).eval(), autoencoder, tmp_path / "pipeline")
    pipeline = FluxPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "a dog", height=32, width=32, num_inference_steps=1, max_sequence_length=8, output_type="pt"
    ).images
    assert image.shape == (1, 3, 32, 32)


def test_the_classifier_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    classifier = AttributeClassifier(heads()).eval()
    classifier.save(tmp_path)
    images = torch.rand(3, 3, 64, 64)
    assert AttributeClassifier.load(tmp_path).read(images) == classifier.half().float().read(images)


def test_the_encoders_are_trained_and_written_for_transformers(tmp_path):
    data = scene_data(tmp_path / "data", count=20, size=32, workers=1)
    clip_settings = ClipSettings(width=32, layers=1, num_steps=2, batch=4)
    first, again = (train_clip(tmp_path / name, data, clip_settings, ALONE) for name in "ab")
    assert torch.equal(weights(first), weights(again)), "two runs are equal to the last digit"
    clip = Clip.load(tmp_path / "a" / "clip")
    assert (
        clip.embed_images(torch.rand(2, 3, 32, 32)).shape == clip.embed_texts(["a dog", "a red cat"]).shape == (2, 32)
    )
    settings = DinoSettings(width=32, layers=1, num_steps=2, batch=4)
    first, again = (train_dino(tmp_path / name, data, settings, ALONE) for name in "ab")
    assert torch.equal(weights(first), weights(again))
    assert Dino.load(tmp_path / "a" / "dinov2").patches(torch.rand(2, 3, 32, 32)).shape == (2, 32, 4, 4)


def test_equal_captions_are_both_right():
    captions = torch.tensor([[1, 2], [1, 2], [3, 4]])
    sure = torch.tensor([[9.0, 9.0, -9.0], [9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]])
    assert contrastive_loss(sure, captions) < 0.5 and contrastive_loss(-sure, captions) > 5


def test_captions_that_belong_to_no_picture_are_wrong_for_all():
    texts = torch.tensor([[1, 2], [3, 4], [5, 6]])
    told_apart = torch.tensor([[9.0, -9.0, -9.0], [-9.0, 9.0, -9.0]])
    taken_in = torch.tensor([[9.0, -9.0, 9.0], [-9.0, 9.0, 9.0]])
    assert contrastive_loss(told_apart, texts) < 0.01 < 0.3 < contrastive_loss(taken_in, texts)
