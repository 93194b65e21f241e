"""Captured attention is what the model computes, injected keys included, and capturing changes nothing."""

import dataclasses
from contextlib import ExitStack

import pytest
import torch
from tiny_flux import NUM_LAYERS

import stableflow as sf
from stableflow.errors import InputError, InterventionError
from stableflow.interventions import AttentionMean, CaptureAttention, ShareKV
from stableflow.interventions.capture import attention_rows
from stableflow.models.attachment import Attachment
from stableflow.models.base import AttentionHook
from stableflow.models.prompts import Reader, split_words

EVERY = tuple(range(NUM_LAYERS))
POINTS = [(1, 0), (14, 6)]  # of 16 x 16 pixels in 4 x 4 tokens: tokens 0 and 7
TOKENS = [0, 7]


@pytest.fixture
def rows(model):
    latents = torch.randn(2, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(3))
    return latents, model.encode_prompt(["a red dog", "a blue cat"])


def capture(model, rows, *interventions, layers=EVERY, points=POINTS, probe=None, **settings):
    seen = {}
    capturing = CaptureAttention(layers, points, (16, 16), lambda f, layer, p: seen.setdefault(layer, p), **settings)
    latents, conditioning = rows
    with model.attach(*interventions, capturing):
        handles = probe(model) if probe else []
        velocity = model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)
    for handle in handles:
        handle.remove()
    return seen, velocity


def test_capturing_changes_nothing_and_leaves_nothing(model, rows):
    before = [len(module._forward_hooks) for module in model.pipeline.transformer.modules()]
    _, velocity = capture(model, rows)
    latents, conditioning = rows
    assert torch.equal(velocity, model.velocity(latents, 0.8, conditioning, guidance_scale=2.0))
    assert [len(module._forward_hooks) for module in model.pipeline.transformer.modules()] == before


@pytest.mark.parametrize("interventions", [[], [ShareKV([0, 3])]], ids=["plain", "injecting"])
def test_captured_rows_give_the_attention_output_of_the_model(model, rows, interventions):
    """Rows times the values (hooked here) must equal what the model's attention kernel returned for these queries."""
    values, outputs = {}, {}

    def probe(model):
        handles = []
        for layer in model.layers:
            attn, i = layer.block.attn, layer.index
            keep = lambda name: lambda module, args, out: values.__setitem__(name, out)  # noqa: E731
            handles.append(attn.to_v.register_forward_hook(keep((i, "image"))))
            if layer.kind == "double":
                handles.append(attn.add_v_proj.register_forward_hook(keep((i, "text"))))
                pre = lambda module, args, i=i: outputs.__setitem__(i, args[0])  # noqa: E731
                handles.append(attn.to_out[0].register_forward_pre_hook(pre))
            else:
                post = lambda module, args, out, i=i: outputs.__setitem__(i, out)  # noqa: E731
                handles.append(attn.register_forward_hook(post))
        return handles

    seen, _ = capture(model, rows, *interventions, probe=probe)
    text = rows[1].tensors["encoder_hidden_states"].shape[1]
    assert sorted(seen) == list(EVERY)
    for layer in model.layers:
        i = layer.index
        assert seen[i].shape == (2, 2, 2, text + 16) and seen[i].dtype == torch.float32
        assert (seen[i].sum(-1) - 1).abs().max() < 1e-5
        joint = values[i, "image"] if layer.kind == "single" else torch.cat([values[i, "text"], values[i, "image"]], 1)
        got = torch.einsum("bpht,bthd->bphd", seen[i], joint.unflatten(-1, (2, 16))).flatten(2)
        start = text if layer.kind == "single" else 0
        expected = outputs[i][:, [start + token for token in TOKENS]]
        assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


def test_injection_changes_the_keys_that_are_seen(model, rows):
    plain, shared = capture(model, rows)[0], capture(model, rows, ShareKV([0]))[0]
    assert torch.equal(plain[0][0], shared[0][0]), "the source's row is its own"
    assert (plain[0][1] - shared[0][1]).abs().max() > 1e-3


def test_rows_by_hand():
    queries, keys = torch.zeros(1, 1, 1, 4), torch.zeros(1, 2, 1, 4)
    queries[..., 0], keys[0, 1, 0, 0] = 2.0, torch.log(torch.tensor(3.0))
    assert torch.allclose(attention_rows(queries, keys).flatten(), torch.tensor([1 / 4, 3 / 4]))  # 2 log 3 / sqrt(4)
    for bias, expected in [([0.0, -torch.inf], [1.0, 0.0]), ([1.0, 1.0], [1 / 4, 3 / 4])]:
        rows = attention_rows(queries, keys, torch.tensor([[[bias]]]))
        assert torch.allclose(rows.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_the_mean_keeps_apart_what_was_asked(model, rows, per_step, per_head):
    latents, conditioning = rows
    mean, plain = AttentionMean(per_step=per_step, per_head=per_head), {}
    capturing = CaptureAttention([1, 3], POINTS, (16, 16), mean, when=(0.4, 0.9))
    checking = CaptureAttention([1, 3], POINTS, (16, 16), lambda f, layer, p: plain.setdefault((f.t, layer), p))
    with model.attach(capturing, checking):
        for t in (1.0, 0.8, 0.5, 0.1):
            model.velocity(latents, t, conditioning, guidance_scale=2.0)
    result = mean.mean()
    assert result.shape == (2, 2 if per_step else 1, 2, 2, 2 if per_head else 1, result.shape[-1])
    assert mean.layers == (1, 3) and mean.times == ((0.8, 0.5) if per_step else ())
    expected = torch.stack([torch.stack([plain[t, layer] for t in (0.8, 0.5)]) for layer in (1, 3)])
    assert torch.allclose(result.mean((1, 4)), expected.mean((1, 4)), atol=1e-6)
    assert mean.num_bytes == result.numel() * 4


def test_what_cannot_be_captured_is_refused(model, rows):
    with pytest.raises(InputError, match="0 <= x < 16"):
        capture(model, rows, points=[(16, 0)])
    with pytest.raises(InputError, match="at least one"):
        capture(model, rows, points=[])
    with pytest.raises(InterventionError, match="Widen t_window"):
        AttentionMean().mean()
    blind = AttentionHook(dataclasses.replace(model.layers[0], watch=None), lambda forward, queries, keys, bias: None)
    with pytest.raises(InterventionError, match="gives no `watch`"), ExitStack() as stack:
        Attachment([blind]).install(stack)
    with pytest.raises(InterventionError, match="joint_start"):
        sf.TokenLayout(4, 4, 7, {"double": 0}).joint_span("image")


def test_words_gather_their_tokens(model):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    assert [(word.text, word.tokens) for word in model.words("a red dog")] == [
        ("a", (0,)),
        ("red", (1,)),
        ("dog", (2,)),
    ]
    pieces = ["</s>", "▁", "▁sit", "ting", "▁dog", ",", "▁a"]  # as T5 cuts words: the space goes with what follows
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    words = split_words("a  sitting dog, a dog", Reader(fast, 20))
    ids = fast("a  sitting dog, a dog").input_ids
    named = [(word.text, "".join(fast.convert_ids_to_tokens([ids[i] for i in word.tokens]))) for word in words]
    assert named == [("a", "▁a"), ("sitting", "▁▁sitting"), ("dog,", "▁dog,"), ("a", "▁a"), ("dog", "▁dog")]
    assert sorted(i for word in words for i in word.tokens) == list(range(len(ids) - 1))
    assert [word.text for word in split_words("a dog sitting", Reader(fast, 3))] == ["a", "dog"], (
        "cut off words are not seen"
    )
