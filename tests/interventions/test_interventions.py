import pytest
import torch
from tiny_flux import NUM_LAYERS, tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, InterventionError, TokenLayoutError
from stableflow.flow.schedule import NEVER, Schedule
from stableflow.interventions import Bypass, InjectKV, KVStore, RecordKV, ShareKV
from stableflow.interventions.blend import Blend
from stableflow.region import Region

EVERY = tuple(range(NUM_LAYERS))


@pytest.fixture
def rows(model):
    """Two rows, different noise and prompts, and what the model makes of them untouched."""
    latents = torch.randn(2, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(3))
    conditioning = model.encode_prompt(["a red dog", "a blue cat"])
    return latents, conditioning, run(model, latents, conditioning)


def run(model, latents, conditioning, *interventions, t=0.8):
    with model.attach(*interventions):
        return model.velocity(latents, t, conditioning, guidance_scale=2.0)


def row(conditioning, index):
    tensors = {name: tensor[index : index + 1] for name, tensor in conditioning.tensors.items()}
    return sf.Conditioning(conditioning.prompts[index : index + 1], tensors)


def module_state(pipeline):
    """Everything that attaching might leave behind."""
    return [
        (name, id(module), id(getattr(module, "processor", None)), len(module._forward_hooks), module.forward)
        for name, module in pipeline.transformer.named_modules()
    ]


@pytest.mark.parametrize("layer", EVERY)
def test_sharing_changes_the_edit_and_only_the_edit(model, rows, layer):
    """Attention matters at these weights: the injected row must move visibly, the source row not by one bit."""
    latents, conditioning, plain = rows
    shared = run(model, latents, conditioning, ShareKV([layer]))
    assert torch.equal(shared[0], plain[0])
    assert (shared[1] - plain[1]).abs().max() > 1e-2


def test_injecting_ones_own_keys_and_values_changes_nothing(model, rows):
    latents, conditioning, _ = rows
    twice = torch.cat([latents[:1], latents[:1]])
    own = sf.Conditioning.concat([row(conditioning, 0)] * 2)
    assert torch.equal(run(model, twice, own, ShareKV(EVERY)), run(model, twice, own))
    store = KVStore()
    alone = run(model, latents[:1], row(conditioning, 0), RecordKV(EVERY, store))
    assert torch.equal(run(model, latents[:1], row(conditioning, 0), InjectKV(EVERY, store)), alone)


def test_recording_changes_nothing(model, rows):
    latents, conditioning, plain = rows
    assert torch.equal(run(model, latents, conditioning, RecordKV(EVERY, KVStore())), plain)


def test_share_equals_record_and_inject(model, rows):
    latents, conditioning, _ = rows
    store = KVStore()
    run(model, latents[:1], row(conditioning, 0), RecordKV([0, 1, 4], store))
    injected = run(model, latents[1:], row(conditioning, 1), InjectKV([0, 1, 4], store))
    shared = run(model, latents, conditioning, ShareKV([0, 1, 4]))
    assert (shared[1:] - injected).abs().max() <= 1e-5


def test_only_image_tokens_are_replaced(model, rows):
    """Text keys and values stay: with all image tokens of both rows equal, sharing must change nothing."""
    latents, conditioning, _ = rows
    seen = {}

    class Watch:
        def hooks(self, layers):
            return []

    layer = model.layers[3]
    handle = layer.block.attn.to_k.register_forward_hook(lambda m, a, out: seen.setdefault("before", out.clone()))
    store = KVStore()
    with model.attach(ShareKV([3]), RecordKV([3], store)):
        after = layer.block.attn.to_k.register_forward_hook(lambda m, a, out: seen.setdefault("after", out.clone()))
        model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)
    handle.remove()
    after.remove()
    text = conditioning.tensors["encoder_hidden_states"].shape[1]
    assert torch.equal(seen["after"][:, :text], seen["before"][:, :text])
    assert torch.equal(seen["after"][1, text:], seen["before"][0, text:])
    assert not torch.equal(seen["after"][1, text:], seen["before"][1, text:])


@pytest.mark.parametrize("when", [(0.5, 0.9), Schedule.window(0.5, 0.9)])
def test_bypass_in_a_window(model, rows, when):
    latents, conditioning, _ = rows
    for t in (1.0, 0.9, 0.7, 0.5, 0.2):
        always = [Bypass([0])] if 0.5 <= t <= 0.9 else []
        expected = run(model, latents, conditioning, *always, t=t)
        assert torch.equal(run(model, latents, conditioning, Bypass([0], when), t=t), expected)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_weight(model, rows, weight):
    latents, conditioning, plain = rows
    blended = run(model, latents, conditioning, ShareKV(EVERY, Blend(weight)))
    full = run(model, latents, conditioning, ShareKV(EVERY))
    if weight == 0.0:
        assert torch.equal(blended, plain)
    elif weight == 1.0:
        assert torch.equal(blended, full)
    else:
        assert not torch.equal(blended, plain) and not torch.equal(blended, full)


def test_token_mask(model, rows):
    latents, conditioning, plain = rows
    full = run(model, latents, conditioning, ShareKV([0]))
    assert torch.equal(run(model, latents, conditioning, ShareKV([0], Blend(token_mask=torch.zeros(4, 4)))), plain)
    assert torch.equal(run(model, latents, conditioning, ShareKV([0], Blend(token_mask=torch.ones(1, 4, 4)))), full)
    half = torch.zeros(4, 4)
    half[:2] = 1
    features, source = torch.randn(1, 16, 8), torch.randn(1, 16, 8)
    layout = sf.TokenLayout(4, 4, 7, {"double": 0, "single": 7})
    mixed = Blend(token_mask=half).apply(features, source, layout, 0.8)
    assert torch.equal(mixed[:, :8], source[:, :8]) and torch.equal(mixed[:, 8:], features[:, 8:])
    with pytest.raises(TokenLayoutError, match="4 x 4 image tokens"):
        run(model, latents, conditioning, ShareKV([0], Blend(token_mask=torch.ones(3, 4))))


def test_time_window(model, rows):
    latents, conditioning, plain = rows
    early = ShareKV([0], Blend(t_window=(0.5, 1.0)))
    assert torch.equal(run(model, latents, conditioning, early, t=0.4), run(model, latents, conditioning, t=0.4))
    assert not torch.equal(run(model, latents, conditioning, early, t=0.8), plain)


@pytest.mark.parametrize("t", [1.0, 0.9, 0.8, 0.5, 0.2])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_window_is_a_schedule(model, rows, weight, t):
    latents, conditioning, _ = rows
    short = ShareKV([0], Blend(weight, t_window=(0.5, 0.9)))
    long = ShareKV([0], Blend(Schedule.window(0.5, 0.9, weight)))
    plain = ShareKV([0], Blend(weight if 0.5 <= t <= 0.9 else 0.0))
    drawn = [run(model, latents, conditioning, sharing, t=t) for sharing in (short, long, plain)]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert short.blend.replaces == long.blend.replaces == (weight == 1.0)


def test_a_weight_that_falls(model, rows):
    latents, conditioning, _ = rows
    falling = Blend(Schedule.ramp(0.8, 0.2, low=0.3, high=0.7))
    for t, weight in ((0.9, 0.8), (0.5, 0.5), (0.1, 0.2)):
        drawn = [run(model, latents, conditioning, ShareKV([0], b), t=t) for b in (falling, Blend(weight))]
        assert torch.allclose(*drawn, atol=1e-6)
    assert not falling.replaces and not Blend(NEVER).acts_at(0.5)


def test_a_region_is_its_token_mask(model, rows):
    latents, conditioning, plain = rows
    region = ~Region.box(0, 0, 6, 12, size=(16, 16))
    mask = torch.ones(4, 4)
    mask[:3, 0], mask[:3, 1] = 0, 0.5  # a token is 4 x 4 pixels here
    by_mask = run(model, latents, conditioning, ShareKV([0], Blend(0.7, token_mask=mask)))
    assert torch.equal(run(model, latents, conditioning, ShareKV([0], Blend(0.7, region=region))), by_mask)
    assert not torch.equal(by_mask, plain)
    with pytest.raises(InputError, match="Bring it to the size"):
        run(model, latents, conditioning, ShareKV([0], Blend(region=Region.everywhere((16, 18)))))
    with pytest.raises(TokenLayoutError, match="one map, or one an edit"):
        run(model, latents, conditioning, ShareKV([0], Blend(region=Region(torch.ones(3, 16, 16)))))


@pytest.mark.parametrize(
    "bad",
    [
        {"weight": 1.5},
        {"weight": float("nan")},
        {"weight": Schedule.ramp(2.0, 0.0)},
        {"t_window": (0.8, 0.2)},
        {"token_mask": torch.ones(4, 4), "region": Region.everywhere((16, 16))},
    ],
)
def test_bad_blends(bad):
    with pytest.raises(InputError):
        Blend(**bad)


@pytest.mark.parametrize("layer", EVERY)
def test_bypass_equals_the_model_with_that_block_replaced_by_an_identity(model, rows, layer):
    latents, conditioning, plain = rows
    bypassed = run(model, latents, conditioning, Bypass([layer]))
    pipeline = tiny_flux_pipeline()
    blocks = pipeline.transformer.transformer_blocks
    position = layer
    if layer >= len(blocks):
        position, blocks = layer - len(blocks), pipeline.transformer.single_transformer_blocks
    del blocks[position]
    removed = sf.wrap(pipeline, name="x").velocity(latents, 0.8, conditioning, guidance_scale=2.0)
    assert torch.equal(bypassed, removed)
    assert (bypassed - plain).abs().max() > 1e-2


@pytest.mark.parametrize("layer", EVERY)
def test_bypass_hands_on_both_streams_as_they_came(model, rows, layer):
    latents, conditioning, _ = rows
    seen = {}
    with model.attach(Bypass([layer])):
        handle = model.layers[layer].block.register_forward_hook(
            lambda module, args, kwargs, output: seen.update(kwargs=kwargs, output=output), with_kwargs=True
        )
        model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)
        handle.remove()
    text, image = seen["output"]
    assert text is seen["kwargs"]["encoder_hidden_states"] and image is seen["kwargs"]["hidden_states"]


def test_interventions_stack(model, rows):
    latents, conditioning, _ = rows
    together = run(model, latents, conditioning, ShareKV([0]), Bypass([3]))
    with model.attach(Bypass([3])):
        nested = run(model, latents, conditioning, ShareKV([0]))
    assert torch.equal(together, nested)
    assert not torch.equal(together, run(model, latents, conditioning, ShareKV([0])))


@pytest.mark.parametrize("interruption", [None, RuntimeError, KeyboardInterrupt])
def test_detaching_leaves_no_trace(model, pipeline, rows, interruption):
    latents, conditioning, plain = rows
    before = module_state(pipeline)
    try:
        with model.attach(ShareKV(EVERY), Bypass([2]), RecordKV(EVERY, KVStore())):
            model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)
            if interruption:
                raise interruption
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert module_state(pipeline) == before
    assert torch.equal(run(model, latents, conditioning), plain)


def test_an_error_inside_the_forward_pass_leaves_no_trace(model, pipeline, rows):
    latents, conditioning, plain = rows
    before = module_state(pipeline)

    class Broken:
        def hooks(self, layers):
            def fail(forward, features):
                raise KeyboardInterrupt

            return [sf.models.base.ProjectionHook(layers[1], "value", fail)]

    with pytest.raises(KeyboardInterrupt), model.attach(Broken()):
        model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)
    assert module_state(pipeline) == before
    assert torch.equal(run(model, latents, conditioning), plain)


def test_each_hook_must_fire_once_a_forward(own_pipeline):
    model = sf.wrap(own_pipeline, name="x")
    conditioning, latents = model.encode_prompt(["a dog"]), torch.randn(1, *model.latent_shape(16, 16))
    block = own_pipeline.transformer.transformer_blocks[1]
    skipping = block.forward
    block.forward = lambda hidden_states, encoder_hidden_states, **rest: (
        encoder_hidden_states,
        hidden_states,
    )
    with pytest.raises(InterventionError, match=r"\{1: 0\}"):
        run(model, latents, conditioning, RecordKV([0, 1], KVStore()))
    block.forward = skipping
    run(model, latents, conditioning, RecordKV([0, 1], KVStore()))


def test_running_the_transformer_past_the_model_is_refused(model, pipeline):
    with model.attach(ShareKV([0])), pytest.raises(InterventionError, match="outside model.velocity"):
        pipeline("a dog", height=16, width=16, num_inference_steps=1, output_type="latent")


def test_what_was_not_recorded_cannot_be_injected(model, rows):
    latents, conditioning, _ = rows
    store = KVStore()
    run(model, latents, conditioning, RecordKV([0], store), t=0.8)
    with pytest.raises(InterventionError, match="No source key was recorded for layer 1"):
        run(model, latents, conditioning, InjectKV([1], store), t=0.8)
    with pytest.raises(InterventionError, match=r"t=0\.7"):
        run(model, latents, conditioning, InjectKV([0], store), t=0.7)


def test_injecting_at_another_size_names_both(model, rows):
    latents, conditioning, _ = rows
    store = KVStore()
    run(model, latents, conditioning, RecordKV([0], store))
    large = torch.randn(1, *model.latent_shape(32, 32))
    with pytest.raises(TokenLayoutError, match="RecordKV saw 16 image tokens of width 32, InjectKV got 64"):
        run(model, large, row(conditioning, 0), InjectKV([0], store))


def test_the_store_holds_what_was_computed(model, rows):
    latents, conditioning, _ = rows
    store = KVStore("cpu")
    run(model, latents, conditioning, RecordKV([1, 4], store))
    assert store.num_bytes == 2 * model.kv_bytes(16, 16)
    assert store.layers == (1, 4) and store.times == (0.8,)


def test_lora_is_seen_by_the_hooks(own_pipeline):
    """Loading a LoRA replaces to_k by a wrapper; what is recorded must be the wrapper's output."""
    from peft import LoraConfig

    model = sf.wrap(own_pipeline, name="x")
    conditioning, latents = model.encode_prompt(["a dog"]), torch.randn(1, *model.latent_shape(16, 16))
    before, after = KVStore(), KVStore()
    run(model, latents, conditioning, RecordKV([0], before))
    own_pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_k"], init_lora_weights=False))
    run(model, latents, conditioning, RecordKV([0], after))
    gap = max((before.entries[a] - after.entries[a]).abs().max() for a in before.entries if a.part == "key")
    assert gap > 1e-2
    assert model.modifications == ("LoRA 'default'",)
