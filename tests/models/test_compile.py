"""Compiled blocks and chosen kernels: interventions act all the same."""

import pytest
import torch
from families import FAMILIES
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, InterventionError
from stableflow.models.load import choose_attention, compile_blocks

LAYERS, SOURCE, EDITS = [0, 3], "a red dog", ["a blue cat", "a car"]


def edited(model):
    editor = sf.StableFlow(model, layers=LAYERS)
    source = editor.generate(SOURCE, seed=1, num_steps=2)
    return torch.cat([editor.edit(source, EDITS).latents, editor.edit(source, EDITS, layers=[]).latents])


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_interventions_act_on_a_model_whose_blocks_are_compiled(own_pipeline, fresh_dynamo):
    """Traced and run by the eager backend, the numbers are those of the plain model to the last bit."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model, expected = sf.wrap(own_pipeline, name="x"), edited(sf.wrap(tiny_flux_pipeline(), name="x"))
    blocks = [layer.block for layer in model.layers]
    compile_blocks(own_pipeline.transformer, backend=backend, fullgraph=True)
    before = [block._compiled_call_impl for block in blocks]
    assert torch.equal(edited(model), expected)
    graphs = len(compiled)
    assert graphs >= 2, "double and single blocks were compiled"
    assert torch.equal(edited(model), expected)
    assert len(compiled) == graphs, "attaching again compiles nothing again"
    assert [block._compiled_call_impl for block in blocks] == before
    with model.attach(sf.Bypass([1])), pytest.raises(ZeroDivisionError):
        assert blocks[1]._compiled_call_impl is None and blocks[0]._compiled_call_impl is not None
        _ = 1 / 0
    assert [block._compiled_call_impl for block in blocks] == before


def test_a_transformer_compiled_as_a_whole_is_refused(own_pipeline, fresh_dynamo):
    """Its hooks are ignored by what was compiled before them, so the pass is refused, not silently plain."""
    own_pipeline.transformer.compile(backend="eager")
    model = sf.wrap(own_pipeline, name="x")
    conditioning, latents = model.encode_prompt([SOURCE]), torch.randn(1, *model.latent_shape(16, 16))
    model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)
    with model.attach(sf.RecordKV([0], sf.KVStore())), pytest.raises(InterventionError, match="compiled as a whole"):
        model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)


def test_attention_backends(own_pipeline, tmp_path):
    own_pipeline.save_pretrained(tmp_path)
    plain = edited(sf.load(tmp_path, device="cpu"))
    native = edited(sf.load(tmp_path, device="cpu", attention_backend="_native_math"))
    own_pipeline.transformer.set_attention_backend("native")  # resetting leaves the process's default as it is
    assert 0 <= (native - plain).abs().max() <= 1e-5
    with pytest.raises(InputError, match="attention_backend='fastest' cannot be used"):
        sf.load(tmp_path, device="cpu", attention_backend="fastest")


def test_families_that_cannot_say_so():
    transformer = FAMILIES["SD3"].make().transformer
    with pytest.raises(InputError, match="computes attention in its own way"):
        choose_attention(transformer, "native")
    with pytest.raises(InputError, match="cannot compile the blocks"):
        compile_blocks(transformer)
