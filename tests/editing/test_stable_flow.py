import pytest
import torch
from tiny_flux import SIZE, tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import FingerprintError, InputError
from stableflow.flow.integrate import integrate
from stableflow.flow.inversion import AlignedReplay
from stableflow.flow.solvers import SOLVERS

SOURCE, EDITS = "a red dog", ["a blue dog", "a red cat", "a red dog sitting on the grass"]
LAYERS = [0, 3]


def picture(height=SIZE, width=SIZE):
    """A smooth picture."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


def generated(model, **settings):
    return sf.StableFlow(model, layers=LAYERS, **settings).generate(SOURCE, seed=1, num_steps=6)


def inverted(model, kv_memory="auto", **settings):
    return sf.StableFlow(model, layers=LAYERS, kv_memory=kv_memory).invert(picture(), SOURCE, num_steps=8, **settings)


def test_injection_changes_the_edit_visibly_and_towards_the_source(model):
    editor, plain = sf.StableFlow(model, layers=LAYERS), sf.StableFlow(model, layers=[])
    source = editor.generate(SOURCE, seed=1, num_steps=6)
    injected = editor.edit(source, EDITS)
    free = plain.edit(plain.generate(SOURCE, seed=1, num_steps=6), EDITS)
    assert (injected.latents - free.latents).abs().max() > 0.2
    distance = lambda result: (result.latents - source.latents).square().mean()  # noqa: E731
    assert distance(injected) < distance(free)


@pytest.mark.parametrize("make", [generated, inverted])
def test_the_policies_agree(model, make):
    """share == record + inject; device == cpu bit for bit."""
    results = {
        keep: sf.StableFlow(model, layers=LAYERS, kv_memory=keep).edit(make(model, kv_memory=keep), EDITS)
        for keep in ("share", "device", "cpu")
    }
    assert torch.equal(results["device"].latents, results["cpu"].latents)
    assert (results["device"].latents - results["share"].latents).abs().max() <= 1e-5
    assert torch.equal(results["share"].source.latents, results["device"].source.latents)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_policies_agree_for_every_solver(model, solver):
    latents = []
    for keep in ("share", "device"):
        editor = sf.StableFlow(model, layers=LAYERS, kv_memory=keep)
        latents.append(editor.edit(editor.generate(SOURCE, seed=1, num_steps=4, solver=solver), EDITS).latents)
    assert (latents[0] - latents[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_papers_inversion_with_every_solver(model, solver):
    latents = []
    for keep in ("share", "device"):
        editor = sf.StableFlow(model, layers=LAYERS, kv_memory=keep)
        source = editor.invert(picture(), SOURCE, num_steps=5, inversion="paper", solver=solver)
        latents.append(editor.edit(source, EDITS).latents)
    assert (latents[0] - latents[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("make", [generated, inverted])
def test_edits_one_by_one_equal_edits_together_in_any_order(model, make):
    editor, source = sf.StableFlow(model, layers=LAYERS), make(model)
    together = editor.edit(source, EDITS).latents
    alone = torch.cat([editor.edit(source, prompt).latents for prompt in EDITS])
    backwards = editor.edit(source, EDITS[::-1]).latents.flip(0)
    assert (together - alone).abs().max() <= 1e-5
    assert (together - backwards).abs().max() <= 1e-5


def test_row_zero_is_untouched_by_its_edits(model):
    """The source of a shared batch is, to rounding, the source alone."""
    editor = sf.StableFlow(model, layers=LAYERS, kv_memory="share")
    source, states = editor.generate(SOURCE, seed=1, num_steps=6), []
    editor.edit(source, EDITS, callback=lambda record: states.append((record.t1, record.latents[:1])))
    assert len(states) == 6
    assert max((state - source.trajectory.at(t)).abs().max() for t, state in states) <= 1e-5


def test_editing_with_the_source_prompt_returns_the_source(model):
    for source in (generated(model), inverted(model)):
        guidance = source.fingerprint.guidance_scale
        result = sf.StableFlow(model, layers=LAYERS).edit(source, SOURCE, guidance_scale=guidance)
        assert (result.latents - source.latents).abs().max() <= 1e-5


def test_aligned_round_trip(model):
    """Latent error of the replayed source, and its PSNR against the autoencoder's own round trip."""
    source = inverted(model, nudge_scale=1.15)
    conditioning = source.conditioning
    end = integrate(
        lambda z, t: model.velocity(z, t, conditioning, guidance_scale=1.0),
        source.noise,
        source.grid,
        AlignedReplay(source.offsets),
    )
    clean = model.encode_image(picture()[None])
    assert (end / 1.15 - clean).abs().max() <= 1e-4
    assert (end / 1.15 - source.latents).abs().max() <= 1e-4
    autoencoder = model.decode_latents(clean)
    psnr = lambda images: -10 * (images - picture()[None]).square().mean().log10()  # noqa: E731
    assert abs(psnr(model.decode_latents(end / 1.15)) - psnr(autoencoder)) <= 0.1


def test_nudging_is_undone(model):
    """The contrast shift that the published release keeps: without undoing, latents are 1.15 times too large."""
    source = inverted(model, nudge_scale=1.15)
    assert torch.allclose(source.latents, model.encode_image(picture()[None]), atol=1e-6)
    assert torch.allclose(source.trajectory.at(0.0), 1.15 * source.latents, atol=1e-6)


def test_aligned_inversion_costs_one_pass_and_paper_two(model):
    assert inverted(model, kv_memory="device").nfe == 8
    assert inverted(model, kv_memory="device", inversion="paper").nfe == 16
    assert inverted(model, inversion="paper", kv_memory="share").nfe == 8


@pytest.mark.parametrize("iterations", [1, 3])
def test_fixed_point_iterations(model, iterations):
    source = inverted(model, solver=sf.FixedPoint(iterations))
    assert source.nfe == 8 * iterations
    result = sf.StableFlow(model, layers=LAYERS).edit(source, SOURCE, guidance_scale=1.0)
    assert (result.latents - source.latents).abs().max() <= 1e-5


def test_guidance_of_edits(model):
    editor, source = sf.StableFlow(model, layers=LAYERS), inverted(model)
    default = editor.edit(source, EDITS)
    assert torch.equal(default.latents, editor.edit(source, EDITS, guidance_scale=3.0).latents)
    rows = editor.edit(source, EDITS, guidance_scale=[3.0, 1.0, 5.0]).latents
    assert torch.equal(rows[0], default.latents[0]) and (rows[1] - default.latents[1]).abs().max() > 1e-3
    with pytest.raises(InputError, match=r"2 values for 3 edit"):
        editor.edit(source, EDITS, guidance_scale=[1.0, 2.0])
    with pytest.raises(InputError, match="finite"):
        editor.edit(source, EDITS, guidance_scale=float("nan"))


def test_window_weight_and_mask_reach_the_injection(model):
    editor, source = sf.StableFlow(model, layers=LAYERS), generated(model)
    full, free = editor.edit(source, EDITS), editor.edit(source, EDITS, layers=[])
    assert torch.equal(editor.edit(source, EDITS, weight=0.0).latents, free.latents)
    assert torch.equal(editor.edit(source, EDITS, token_mask=torch.zeros(4, 4)).latents, free.latents)
    for settings in ({"weight": 0.5}, {"t_window": (0.5, 1.0)}, {"token_mask": torch.eye(4)}):
        part = editor.edit(source, EDITS, **settings).latents
        assert not torch.equal(part, full.latents) and not torch.equal(part, free.latents)


@pytest.mark.parametrize("size", [(SIZE, 2 * SIZE), (24, 12)])
def test_sizes_that_are_not_square(model, size):
    editor = sf.StableFlow(model, layers=LAYERS)
    drawn = editor.edit(editor.generate(SOURCE, seed=0, num_steps=2, height=size[0], width=size[1]), EDITS)
    assert drawn.images.shape == (3, 3, *size)


def test_the_same_seed_draws_the_same_picture(model):
    assert torch.equal(generated(model).images, generated(model).images)


def test_a_missing_seed_is_drawn_and_kept(model):
    editor = sf.StableFlow(model, layers=LAYERS)
    source = editor.generate(SOURCE, num_steps=2)
    again = editor.generate(SOURCE, seed=source.fingerprint.seed, num_steps=2)
    assert torch.equal(source.latents, again.latents)


def test_a_source_is_refused_under_other_settings(model):
    source = generated(model)
    other = sf.wrap(tiny_flux_pipeline(seed=5), name="other")
    with pytest.raises(FingerprintError, match=r"checkpoint is '\w+' there and '\w+' here"):
        sf.StableFlow(other, layers=LAYERS).edit(source, EDITS)
    half = sf.wrap(tiny_flux_pipeline().to(dtype=torch.bfloat16), name="random-flux")
    with pytest.raises(FingerprintError, match="dtype is 'float32' there and 'bfloat16' here"):
        sf.StableFlow(half, layers=LAYERS).edit(source, EDITS)
    for wrong in (
        {"height": 32},
        {"num_steps": 7},
        {"guidance_scale": 1.0},
        {"prompt": "a cat"},
        {"seed": 2},
    ):
        name = next(iter(wrong))
        with pytest.raises(FingerprintError, match=f"{name} is .* there and .* here"):
            source.fingerprint.require(**wrong)
    source.fingerprint.require(height=SIZE, num_steps=6, guidance_scale=3.5, prompt=SOURCE, seed=1)
    with pytest.raises(InputError, match="colour"):
        source.fingerprint.require(colour="red")


@pytest.mark.parametrize("make", [generated, inverted])
def test_layers_that_were_not_recorded_are_recorded_when_an_edit_asks_for_them(model, make):
    source = make(model, kv_memory="device")
    later = sf.StableFlow(model, layers=[1, 4]).edit(source, EDITS)
    editor = sf.StableFlow(model, layers=[1, 4])
    if make is generated:
        known = editor.generate(SOURCE, seed=1, num_steps=6)
    else:
        known = editor.invert(picture(), SOURCE, num_steps=8)
    assert (later.latents - editor.edit(known, EDITS).latents).abs().max() <= 1e-5
    assert later.recipe["layers"] == [1, 4] and later.recipe["nfe"]["source"] > source.nfe
    again = sf.StableFlow(model, layers=[1, 4]).edit(source, EDITS[0])
    assert (again.latents - later.latents[:1]).abs().max() <= 1e-5


def test_the_old_name_of_kv_memory_is_taken_with_a_warning(model):
    with pytest.warns(UserWarning, match="kv_memory"):
        editor = sf.StableFlow(model, layers=LAYERS, keep="share")
    assert editor.kv_memory == "share" and editor.having(weight=0.5).kv_memory == "share"


def test_bad_settings(model):
    editor = sf.StableFlow(model, layers=LAYERS)
    with pytest.raises(InputError, match=r"layers \[5\] are out of range.*0\.\.4"):
        sf.StableFlow(model, layers=[0, 5])
    with pytest.raises(InputError, match="No vital layers are known"):
        sf.StableFlow(model)
    with pytest.raises(InputError, match="prompt is empty"):
        editor.generate("  ")
    with pytest.raises(InputError, match="at least one edited prompt"):
        editor.edit(generated(model), [])
    with pytest.raises(InputError, match="Both seed and latents"):
        editor.generate(SOURCE, seed=1, latents=torch.zeros(1, 4, 8, 8))
    with pytest.raises(InputError, match=r"latents must be a tensor of shape \(1, 4, 8, 8\)"):
        editor.generate(SOURCE, latents=torch.zeros(1, 4, 9, 8))
    with pytest.raises(InputError, match="inversion='paper' with this solver"):
        editor.invert(picture(), SOURCE, solver="heun")
