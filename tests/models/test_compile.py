"""Compiled blocks and chosen kernels: interventions act all the same."""

import pytest
import torch
from families import FAMILIES
from models.conformance import square
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InputError, InterventionError
from stableflow.interventions.blend import Blend
from stableflow.models.gate import Gate, add_gates
from stableflow.models.load import choose_attention, compile_blocks

LAYERS, SOURCE, EDITS = [0, 3], "a red dog", ["a blue cat", "a car"]


def edited(model, *, seed=1, num_steps=2, size=(None, None)):
    editor = sf.StableFlow(model, layers=[0, len(model.layers) - 2])
    source = editor.generate(SOURCE, seed=seed, num_steps=num_steps, height=size[0], width=size[1])
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
    compile_blocks(own_pipeline.transformer, model.layers, backend=backend, fullgraph=True)
    before = [block._compiled_call_impl for block in blocks]
    assert torch.equal(edited(model), expected)
    graphs = len(compiled)
    edited(model, seed=2, num_steps=3)
    assert len(compiled) == graphs, "neither attaching again nor further steps compile anything again"
    assert [block._compiled_call_impl for block in blocks] == before
    with model.attach(sf.Bypass([1])), pytest.raises(ZeroDivisionError):
        assert blocks[1]._compiled_call_impl is None and blocks[0]._compiled_call_impl is not None
        _ = 1 / 0
    assert [block._compiled_call_impl for block in blocks] == before


def test_a_gate_costs_one_more_graph_a_kind_of_block(own_pipeline, fresh_dynamo):
    compiled = []
    model = sf.wrap(own_pipeline, name="x")
    compile_blocks(own_pipeline.transformer, model.layers, backend=lambda graph, _: compiled.append(1) or graph.forward)
    editor = sf.StableFlow(model, layers=LAYERS)
    source = editor.generate(SOURCE, seed=1, num_steps=2)
    editor.edit(source, EDITS, layers=[])
    closed = len(compiled)
    editor.edit(source, EDITS)
    assert len(compiled) == closed + 2, "a double and a single block with open gates, whatever the step"


def test_injection_is_compiled_in_and_the_rest_is_not(own_pipeline, fresh_dynamo):
    """Full replacement goes through the gates; a weight or a mask needs to see the rows."""
    model = sf.wrap(own_pipeline, name="x")
    plain = some_edits(sf.wrap(tiny_flux_pipeline(), name="x"))
    compile_blocks(own_pipeline.transformer, model.layers, backend="eager")
    assert all(torch.equal(a, b) for a, b in zip(some_edits(model), plain))
    store = sf.KVStore()
    for blend, stays in ((Blend(), True), (Blend(t_window=(0.5, 1.0)), True), (Blend(weight=0.5), False)):
        with model.attach(sf.InjectKV(LAYERS, store, blend)):
            assert (model.layers[0].block._compiled_call_impl is not None) == stays
    gates = [gate for layer in model.layers for gate in layer.projections("key")[0].module.gates]
    assert len(gates) == 5 and not any(gate.open for gate in gates)


def some_edits(model):
    editor = sf.StableFlow(model, layers=LAYERS)
    source = editor.generate(SOURCE, seed=1, num_steps=3)
    ways = ({}, {"t_window": (0.5, 1.0)}, {"weight": 0.5}, {"token_mask": torch.eye(4)})
    return [editor.edit(source, EDITS, **way).latents for way in ways]


@pytest.mark.parametrize("name", FAMILIES)
def test_gates_inject_what_hooks_do_in_every_family(name):
    """Fused projections, two branches of guidance, a second attention; blocks only pass for compiled, to be quick."""
    size = square(FAMILIES[name])
    plain, gated = (sf.wrap(FAMILIES[name].make(), name="x") for _ in range(2))
    add_gates(gated.layers)
    for layer in gated.layers:
        layer.block._compiled_call_impl = layer.block._call_impl
    opened = []
    with gated.attach(sf.InjectKV([0], sf.KVStore())):
        assert gated.layers[0].block._compiled_call_impl is not None, "not hooked"
    place = Gate.place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gate, "place", lambda gate, output: opened.append(gate) or place(gate, output))
        found = edited(gated, size=size)
    assert opened and torch.equal(found, edited(plain, size=size))


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
        compile_blocks(transformer, [])
