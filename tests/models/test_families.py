"""What the families do beyond the conformance suite: two branches, second attentions, masks, and what is refused."""

from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks import LayerSkipConfig, apply_first_block_cache, apply_layer_skip, apply_taylorseer_cache
from diffusers.models import embeddings
from families import FAMILIES
from models.conformance import (
    PROMPTS,
    PROPERTIES,
    ROUNDING,
    T,
    Watch,
    every,
    gap,
    model_of,
    noise,
    pipeline_of,
    row,
    sample_with_diffusers,
    square,
    velocity,
)
from safetensors import safe_open
from tiny_flux import tiny_tokenizer

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.errors import InputError, InterventionError, TokenLayoutError
from stableflow.interventions import Bypass, InjectKV, KVStore, RecordKV
from stableflow.models import families, guidance, watch
from stableflow.models.base import AttentionHook, ShowsAttention, TokenLayout, Word
from stableflow.models.guidance import branch_tensors, guide
from stableflow.models.prompts import Reader, split_words

given = branch_tensors
CONFIGS = {"FirstBlockCache": FirstBlockCacheConfig(threshold=0.2), "TaylorSeer": TaylorSeerCacheConfig()}


def prepared(name, rows=1):
    family = FAMILIES[name]
    model = model_of(family)
    return family, model, noise(model, square(family), rows), model.encode_prompt(PROMPTS[:rows])


def prepared_with_negatives(name):
    family, model, latents, conditioning = prepared(name, rows=2)
    if not any(tensor.startswith("negative_") for tensor in conditioning.tensors):
        pytest.skip(f"{name} is guided by an embedded scale, so it has one branch; ends if it gets negative prompts")
    return family, model, latents, conditioning


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, family in FAMILIES.items() for k in family.block_inputs])
def test_the_layout_check_notices_a_span_that_is_off_by_one(monkeypatch, name, kind, shift):
    right = TokenLayout.image_span

    def wrong(self, asked):
        span = right(self, asked)
        return slice(span.start + shift, span.stop + shift) if asked == kind else span

    monkeypatch.setattr(TokenLayout, "image_span", wrong)
    try:
        measured = PROPERTIES["layout"].measure(FAMILIES[name])
    except (AssertionError, RuntimeError, IndexError):
        return
    assert measured > 1e-2


def swapped_streams(args, kwargs):
    return kwargs["hidden_states"], kwargs["encoder_hidden_states"]


@pytest.mark.parametrize(
    ("name", "module", "function", "wrong", "noticed_by"),
    [
        (
            "SD3",
            guidance,
            "branch_tensors",
            lambda conditioning, branch: given(conditioning, "conditional"),
            "sampling",
        ),
        ("Qwen-Image", watch, "_bias", lambda mask: None, "attention"),
        ("Chroma", watch, "_bias", lambda mask: None, "attention"),
        ("Bria", embeddings, "apply_rotary_emb", lambda tokens, rotation, sequence_dim: tokens, "attention"),
    ],
    ids=["branch mistaken", "mask forgotten", "bias forgotten", "positions forgotten"],
)
def test_the_suite_notices_mistakes(monkeypatch, name, module, function, wrong, noticed_by):
    monkeypatch.setattr(module, function, wrong)
    assert_noticed(name, noticed_by)


def with_blocks(**changes):
    """Change what a family declares of its last list of blocks."""
    return lambda right: {"blocks": (*right.blocks[:-1], replace(right.blocks[-1], **changes))}


def values_for_keys(right):
    own = right.blocks[-1].projections
    return with_blocks(projections=lambda attentions, index, part: own(attentions, index, "value"))(right)


def scale_doubled(right):
    return {"inputs": lambda given: right.inputs(replace(given, guidance=2 * given.guidance))}


def padding_read(right):
    return {"inputs": lambda given: {**right.inputs(given), "cap_feats": list(given.tensors["caption"])}}


@pytest.mark.parametrize(
    ("name", "wrong", "noticed_by"),
    [
        ("SD3", with_blocks(identity=swapped_streams), "bypass"),
        ("SD3.5-medium", with_blocks(attentions=lambda block: [block.attn]), "sealed"),
        ("FLUX.2-klein", values_for_keys, "sealed"),
        ("Qwen-Image", lambda right: {"combine": guide}, "sampling"),
        ("Z-Image", padding_read, "batch"),
        ("FLUX.1", scale_doubled, "sampling"),
    ],
    ids=[
        "streams swapped",
        "attention forgotten",
        "values for keys",
        "norm left",
        "padding read",
        "scale doubled",
    ],
)
def test_the_suite_notices_a_wrong_declaration(monkeypatch, name, wrong, noticed_by):
    pipeline_class = type(pipeline_of(FAMILIES[name])).__name__
    right = families.FAMILIES[pipeline_class]
    monkeypatch.setitem(families.FAMILIES._entries, pipeline_class, replace(right, **wrong(right)))
    assert_noticed(name, noticed_by)


def assert_noticed(name, noticed_by):
    property = PROPERTIES[noticed_by]
    try:
        measured = property.measure(FAMILIES[name])
    except (AssertionError, RuntimeError):
        return
    assert measured > property.bound


@pytest.mark.parametrize("name", FAMILIES)
def test_each_branch_is_injected_with_its_own(name):
    """Also from a source that was not guided: its unconditional branch is recorded, and recording does not move it."""
    family, model, latents, conditioning = prepared_with_negatives(name)
    store, last = KVStore(), len(model.layers) - 1
    source = row(conditioning, 0)
    plain = model.velocity(latents[:1], T, source, guidance_scale=1.0)
    with model.attach(RecordKV([0, last], store)):
        recorded = model.velocity(latents[:1], T, source, guidance_scale=1.0)
    assert gap(recorded, plain) < ROUNDING
    assert {address.branch for address in store.entries} == {"conditional", "unconditional"}
    watch = Watch(last)
    velocity(model, family, latents[1:], row(conditioning, 1), InjectKV([0, last], store), watch)
    for address, features in store.entries.items():
        if address.layer == last and address.part == "key":
            assert torch.equal(watch.seen[address.branch, address.attention], features)
    keys = [store.entries[a] for a in store.entries if (a.layer, a.part, a.attention) == (last, "key", 0)]
    assert gap(*keys) > 1e-2, "the branches differ, so a mix-up would show"


@pytest.mark.parametrize("name", FAMILIES)
def test_guidance_is_per_row_and_one_means_none(name):
    _, model, latents, conditioning = prepared_with_negatives(name)
    mixed = model.velocity(latents, T, conditioning, guidance_scale=[1.0, 4.0])
    for scale, index in [(1.0, 0), (4.0, 1)]:
        alone = model.velocity(latents, T, conditioning, guidance_scale=scale)
        assert gap(mixed[index], alone[index]) < ROUNDING
    assert gap(mixed, model.velocity(latents, T, conditioning, guidance_scale=1.0)) > 1e-2
    with pytest.raises(InputError, match="3 values for 2 rows"):
        model.velocity(latents, T, conditioning, guidance_scale=[1.0, 2.0, 3.0])


def test_guidance_in_numbers():
    conditional, unconditional = torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 1.0)
    assert guide(conditional, unconditional, torch.tensor([0.5, 2.0])).flatten().tolist() == [3.0, 5.0]


def test_a_conditioning_without_negative_prompt_serves_unguided_rows_only():
    _, model, latents, conditioning = prepared("SD3")
    tensors = {name: tensor for name, tensor in conditioning.tensors.items() if not name.startswith("negative_")}
    bare = sf.Conditioning(conditioning.prompts, tensors)
    assert model.velocity(latents, T, bare, guidance_scale=1.0).isfinite().all()
    with pytest.raises(InputError, match="needs a negative prompt"):
        model.velocity(latents, T, bare, guidance_scale=2.0)
    with pytest.raises(InputError, match="need the same tensors"):
        sf.Conditioning.concat([conditioning, bare])


def test_visits_are_counted_by_branch():
    """Two guided passes at one time are two visits of each branch, not four of one."""
    _, model, latents, conditioning = prepared("Chroma")
    store = KVStore()
    with model.attach(RecordKV([0], store)):
        for _ in range(2):
            model.velocity(latents, T, conditioning, guidance_scale=3.0)
    assert sorted((a.branch, a.occurrence) for a in store.entries if a.part == "key") == [
        (branch, visit) for branch in ("conditional", "unconditional") for visit in (0, 1)
    ]
    store = KVStore(last_visits=True)
    with model.attach(RecordKV([0], store)):
        for _ in range(2):
            model.velocity(latents, T, conditioning, guidance_scale=3.0)
    assert sorted((a.branch, a.occurrence) for a in store.entries if a.part == "key") == [
        ("conditional", 0),
        ("unconditional", 0),
    ]


def test_the_second_attention_of_sd35_medium_is_recorded_and_injected():
    family, model, latents, conditioning = prepared("SD3.5-medium", rows=2)
    store = KVStore()
    velocity(model, family, latents[:1], row(conditioning, 0), RecordKV(every(model), store))
    assert {a.layer for a in store.entries if a.attention == 1} == {0, 2}
    moved = {}
    for attentions in ({0}, {0, 1}):
        part = KVStore()
        for address, features in store.entries.items():
            part.put(address, features if address.attention in attentions else torch.zeros_like(features))
        moved[len(attentions)] = velocity(model, family, latents[1:], row(conditioning, 1), InjectKV([0], part))
    assert gap(moved[1], moved[2]) > 1e-3, "what was recorded of the second attention acts"


def test_flux_sessions_keep_their_names(tmp_path):
    """Files of one branch and one attention are written as before there were more."""
    family, model, *_ = prepared("FLUX.1")
    editor = sf.StableFlow(model, layers=[3], kv_memory="device")
    editor.generate(PROMPTS[0], seed=0, num_steps=1, height=family.size, width=family.size).save(tmp_path)
    with safe_open(tmp_path / "source.safetensors", framework="pt") as file:
        assert sorted(name for name in file.keys() if name.startswith("kv/")) == [  # noqa: SIM118
            "kv/1.0/0/3/key",
            "kv/1.0/0/3/value",
        ]


@pytest.mark.parametrize("name", ["Qwen-Image", "Z-Image"])
def test_prompts_of_any_length_share_a_batch(name):
    """Padded beside a longer one, a prompt says the same."""
    _, model, latents, _ = prepared(name, rows=2)
    short, long = model.encode_prompt(PROMPTS[:1]), model.encode_prompt(PROMPTS[1:])
    both = sf.Conditioning.concat([short, long])
    together = model.velocity(latents, T, both, guidance_scale=3.0)
    for index, own in enumerate([short, long]):
        assert (
            gap(together[index : index + 1], model.velocity(latents[index : index + 1], T, own, guidance_scale=3.0))
            < ROUNDING
        )


def test_prompts_without_masks_need_one_length():
    pipeline = pipeline_of(FAMILIES["Chroma"])
    parts = [sf.wrap(pipeline, name="x", max_sequence_length=n).encode_prompt(PROMPTS[:1]) for n in (9, 12)]
    with pytest.raises(TokenLayoutError, match="one text length"):
        sf.Conditioning.concat(parts)


def test_distilled_klein_takes_no_guidance():
    pipeline = FAMILIES["FLUX.2-klein"].make()
    pipeline.register_to_config(is_distilled=True)
    model = sf.wrap(pipeline, name="distilled", max_sequence_length=24)
    assert model.default_guidance_scale is None
    assert set(model.encode_prompt(PROMPTS).tensors) == {"encoder_hidden_states"}


@pytest.mark.parametrize("name", ["SD3", "Z-Image"])
def test_pictures_beyond_the_positions_are_refused(name):
    _, model, *_ = prepared(name)
    with pytest.raises(InputError, match="has positions up to"):
        model.latent_shape(10_000, 64)
    with pytest.raises(InputError, match=r"positive multiples of 4.*The nearest is 16x16"):
        model.latent_shape(15, 17)


@pytest.mark.parametrize("name", FAMILIES)
def test_words_are_the_tokens_that_another_word_moves(name):
    """In text encoders without attention, where a word moves its own tokens and no others."""
    family = FAMILIES[name]
    model = model_of(family, pipeline=family.make())
    if not isinstance(model, ShowsAttention):
        pytest.skip(f"{name} shows no attention yet; ends when it has `words`")
    encoders = [part for key, part in model.pipeline.components.items() if key.startswith("text_encoder") and part]
    outputs = [m for e in encoders for key, m in e.named_modules() if key.endswith((".o", ".o_proj", ".out_proj"))]
    for module in outputs:
        torch.nn.init.zeros_(module.weight)
    prompt = "a red dog sitting on grass"
    words = model.words(prompt)
    assert outputs and [word.text for word in words] == prompt.split()
    text = model.encode_prompt([prompt]).tensors["encoder_hidden_states"]
    for i, word in enumerate(words):
        changed = " ".join([*prompt.split()[:i], "snow", *prompt.split()[i + 1 :]])
        moved = (model.encode_prompt([changed]).tensors["encoder_hidden_states"] - text).abs().amax(-1)[0] > 1e-6
        assert word.tokens == tuple(moved.nonzero().flatten().tolist())
    assert (name == "SD3.5-medium") == (len(words[0].tokens) == 2), "CLIP's and T5's"


@pytest.mark.parametrize("name", ["Chroma", "FLUX.2-dev", "Qwen-Image", "SD3.5-medium"])
@pytest.mark.parametrize("keep", ["device", "share"])
def test_attention_of_an_edit_is_whole_and_leaves_the_picture(name, keep):
    """Image, words and rest are all there is; source and edit have texts of two lengths where the family allows it."""
    family, model, *_ = prepared(name)
    editor = sf.StableFlow(model, layers=[0], kv_memory=keep)
    source = editor.generate(PROMPTS[0], seed=1, num_steps=2, height=family.size, width=family.size)
    maps = sf.attention(editor, source, PROMPTS[1:], points=[(5, 9)])
    assert torch.equal(maps.images, editor.edit(source, PROMPTS[1:]).images)
    for attention, prompt in [(maps.source, PROMPTS[0]), (maps.edits[0], PROMPTS[1])]:
        assert attention.words == tuple(prompt.split()) and attention.text.min() > 0
        whole = attention.image.sum((-1, -2)) + attention.text.sum(-1) + attention.rest
        assert gap(whole, torch.ones_like(whole)) < 1e-5


def test_a_family_without_attention_is_refused_by_name():
    family, model, *_ = prepared("Z-Image")
    editor = sf.StableFlow(model, layers=[0])
    source = editor.generate(PROMPTS[0], seed=1, num_steps=1, height=family.size, width=family.size)
    with pytest.raises(InterventionError, match="'Z-Image' cannot show its attention yet"):
        sf.attention(editor, source, PROMPTS[1:], points=[(5, 9)])


def test_words_of_templates_and_paddings():
    """Templates that hold the prompt's words themselves, prompts with spaces around, padding in front, lost words."""
    tokenizer = tiny_tokenizer(64)
    around = "a dog : {} a dog".format
    assert split_words(" a dog ", Reader(tokenizer, 9, around)) == (Word("a", (3,)), Word("dog", (4,)))
    assert split_words("a dog", Reader(tokenizer, 9, around, first=4)) == (Word("dog", (0,)),)
    assert split_words("a dog on grass", Reader(tokenizer, 3)) == (Word("a", (0,)), Word("dog", (1,)))
    tokenizer.padding_side = "left"
    started = "<bos> {}".format
    assert split_words("a dog", Reader(tokenizer, 9, started, padded=True)) == (Word("a", (7,)), Word("dog", (8,)))


def test_bria_takes_its_times_from_its_scheduler():
    """Shifted by size or not; the suite's fixture is not."""
    family = FAMILIES["Bria"]
    pipeline = family.make()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    model, size = model_of(family, pipeline=pipeline), (family.size, 2 * family.size)
    latents = noise(model, size)
    sample_with_diffusers(family, pipeline, latents, size, 3, family.text_lengths[0], family.guided[1])
    assert model.time_grid(3, *size).times == tuple(pipeline.scheduler.sigmas.tolist())
    assert model.time_grid(3, *size).times != model_of(family).time_grid(3, *size).times


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_settings(name):
    family, model, *_ = prepared(name)
    with pytest.raises(InputError, match="num_steps must be 1 or more"):
        model.time_grid(0, *square(family))
    with pytest.raises(InputError, match=r"max_sequence_length must lie in 1\.\."):
        model_of(family, 5000)


def test_a_scheduler_that_cannot_make_one_step_says_so():
    family, model, *_ = prepared("Qwen-Image")
    with pytest.raises(InputError, match="shift_terminal=0.02, which needs two or more"):
        model.time_grid(1, *square(family))


@pytest.mark.parametrize("name", FAMILIES)
def test_stochastic_schedulers_are_refused(name):
    pipeline = FAMILIES[name].make()
    pipeline.scheduler.register_to_config(stochastic_sampling=True)
    with pytest.raises(InputError, match="stochastic_sampling"):
        sf.wrap(pipeline, name="x")


@pytest.mark.parametrize("name", ["FLUX.1", "FLUX.2-klein", "Chroma", "SD3.5-medium"])
def test_fused_projections_are_refused(name):
    family = FAMILIES[name]
    pipeline = family.make()
    pipeline.transformer.fuse_qkv_projections()
    model = model_of(family, pipeline=pipeline)
    with pytest.raises(InterventionError, match="unfuse_qkv_projections"), model.attach(RecordKV([0], KVStore())):
        pass


def enabled(name, what):
    """A transformer with a cache or layer skipping on, by diffusers' function where it has no switch of its own."""
    transformer = FAMILIES[name].make().transformer
    if what == "LayerSkip":
        apply_layer_skip(transformer, LayerSkipConfig(indices=[1], fqn="transformer_blocks"))
    elif hasattr(transformer, "enable_cache"):
        transformer.enable_cache(CONFIGS[what])
    else:
        {"FirstBlockCache": apply_first_block_cache, "TaylorSeer": apply_taylorseer_cache}[what](
            transformer, CONFIGS[what]
        )
    return transformer


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("FLUX.1", "FirstBlockCache"),
        ("FLUX.1", "TaylorSeer"),
        ("FLUX.2-klein", "TaylorSeer"),
        ("Qwen-Image", "FirstBlockCache"),
        ("SD3.5-medium", "TaylorSeer"),
        ("SD3", "LayerSkip"),
    ],
)
def test_step_caches_and_layer_skipping_are_refused(name, what):
    family = FAMILIES[name]
    pipeline = family.make()
    pipeline.transformer = enabled(name, what)
    model = model_of(family, pipeline=pipeline)
    for intervention in (RecordKV([0], KVStore()), Bypass([0])):
        with pytest.raises(InterventionError, match="leaves out layers or reuses"), model.attach(intervention):
            pass
    if getattr(pipeline.transformer, "is_cache_enabled", False):
        pipeline.transformer.disable_cache()
        with model.attach(RecordKV([0], KVStore())):
            model.velocity(noise(model, square(family)), T, model.encode_prompt(PROMPTS[:1]), guidance_scale=None)


@pytest.mark.parametrize(
    "name, given, told",
    [
        ("Qwen-Image", {"context_parallel_config": diffusers.ContextParallelConfig(ulysses_degree=2)}, "not proven"),
        ("FLUX.1", {"context_parallel_config": diffusers.ContextParallelConfig(ring_degree=2)}, "not proven"),
        ("FLUX.1", {"tensor_parallel_config": diffusers.TensorParallelConfig(tp_degree=2)}, "tensor parallelism"),
    ],
)
def test_parallelism_that_was_not_proven_equal_is_refused(name, given, told):
    """Set as `enable_parallelism` does, which itself needs an accelerator."""
    family = FAMILIES[name]
    pipeline = family.make()
    pipeline.transformer._parallel_config = diffusers.ParallelConfig(**given)
    model = model_of(family, pipeline=pipeline)
    with pytest.raises(InterventionError, match=told), model.attach(Bypass([0])):
        pass


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_runs_finite(name):
    """States stay in float32."""
    family = FAMILIES[name]
    model = model_of(family, pipeline=family.make().to(dtype=torch.bfloat16))
    editor = sf.StableFlow(model, layers=[0, 1], kv_memory="device")
    source = editor.generate(PROMPTS[0], seed=0, num_steps=2, height=family.size, width=family.size)
    edits = editor.edit(source, PROMPTS)
    assert source.latents.dtype == edits.latents.dtype == torch.float32
    assert edits.latents.isfinite().all()


def test_hooks_that_only_move_weights_are_no_hindrance():
    family = FAMILIES["FLUX.1"]
    pipeline = family.make()
    pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    model = model_of(family, pipeline=pipeline)
    assert model.dtype == torch.float32, "what it computes in, not what it stores"
    with model.attach(RecordKV([0], KVStore())):
        pass


LAYERED = ("alike", "direct-inversion", "guide-rescale", "dragon")


@pytest.mark.parametrize(
    "editor", [name for name in EDITORS if name not in ("stable-flow", "move")]
)  # in the suite; told where
@pytest.mark.parametrize("name", ["SD3", "Z-Image"])
def test_every_editor_runs_under_classifier_free_guidance(name, editor):
    family, model, *_ = prepared(name)
    method = EDITORS[editor](model, **({"layers": [0, 1]} if editor in LAYERED else {}))
    source = method.generate(PROMPTS[0], seed=1, num_steps=4, height=family.size, width=family.size)
    if editor == "sam-flow" and model.words is None:
        with pytest.raises(InputError, match="does not show"):
            method.edit(source, PROMPTS[1:])
        return
    result = method.edit(source, PROMPTS[1:])
    assert result.latents.isfinite().all() and gap(result.latents, source.latents) > 1e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_the_latents(name):
    """Through a guided pass; the usual velocity is the same one and keeps no graph."""
    family, model, latents, conditioning = prepared(name)
    latents.requires_grad_()
    velocity = model.velocity_with_grad(latents, T, conditioning, guidance_scale=family.guided[0])
    assert torch.equal(velocity, model.velocity(latents, T, conditioning, guidance_scale=family.guided[0]))
    assert not model.velocity(latents, T, conditioning, guidance_scale=family.guided[0]).requires_grad
    (gradient,) = torch.autograd.grad(velocity.square().sum(), latents)
    assert gradient.isfinite().all() and (gradient != 0).all()


def test_a_pipeline_class_is_of_one_family():
    assert all(name in family.pipelines for name, family in families.FAMILIES.items())
    for family in set(families.FAMILIES.values()):
        assert all(families.FAMILIES[name] is family for name in family.pipelines)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_declared_order_is_that_of_attention(name):
    """Another text leaves the image's keys of the first layer as they were, and moves some of the text's."""
    family, model, latents, conditioning = prepared(name)
    if not isinstance(model, ShowsAttention):
        pytest.skip(f"{name} shows no attention yet; ends when it has `watch`")
    other = {key: -tensor if tensor.ndim == 3 else tensor for key, tensor in conditioning.tensors.items()}
    keys = [joint_keys(model, family, latents, c) for c in (conditioning, sf.Conditioning(conditioning.prompts, other))]
    image, text = ([own[:, layout.joint_span(stream)] for own, layout in keys] for stream in ("image", "text"))
    assert gap(*image) == 0 and gap(*text) > 1e-2


def joint_keys(model, family, latents, conditioning):
    seen = []

    class Watching:
        def hooks(self, layers):
            return [AttentionHook(layers[0], lambda forward, q, k, bias: seen.append((k, forward.layout)))]

    with model.attach(Watching()):
        model.velocity(latents, T, conditioning, guidance_scale=family.unguided[0])
    return seen[0]
