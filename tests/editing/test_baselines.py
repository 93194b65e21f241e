"""The methods to compare with: exact limits of each, and what holds for every registered editor."""

import dataclasses
import json

import pytest
import torch
from test_stable_flow import EDITS, LAYERS, SOURCE, picture
from tiny_flux import SIZE, tiny_flux_pipeline

import stableflow as sf
from stableflow.editing import EDITORS, Editor, FlowEdit, RFInversion, RFSolverEdit, SDEdit
from stableflow.errors import FingerprintError, InputError, UnknownNameError
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler, Midpoint
from stableflow.interventions import InjectKV, KVStore, RecordKV, ShareKV

FROM_PICTURE = ["sdedit", "flowedit", "rf-inversion", "rf-solver-edit", "ddcm", "edit-friendly", "edict", "pixelman"]
FROM_PICTURE += ["dnaedit", "flowalign", "guide-rescale", "polish", "steerflow", "uniedit"]
FROM_PICTURE += ["dragon", "sam-flow", "two-models"]
ALL = ["stable-flow", "reprompt", "direct-inversion", "kv-edit", "lomoe", "brushes", "move", "steered", "cyclic"]
ALL += ["alike", "freqedit", *FROM_PICTURE]
ELSEWHERE = ["npi", "null-text"]  # not for FLUX.1, which has no negative prompt: test_npi.py, test_newer.py
SETTINGS = {
    "alike": {"layers": LAYERS},
    "stable-flow": {"layers": LAYERS},
    "flowedit": {"num_steps": 6, "n_max": 5},
    "edit-friendly": {"num_steps": 6, "skip": 1},
    "dnaedit": {"num_steps": 6, "skip": 1},
    "flowalign": {"num_steps": 6, "weight": 2.0},
    "guide-rescale": {"num_steps": 6, "layers": LAYERS},
    "dragon": {"num_steps": 6, "layers": LAYERS},
    "sam-flow": {"num_steps": 6, "n_max": 5, "n_avg": 1},
    "cyclic": {"cycles": 1},
    "freqedit": {"share": 0.5},
    "reprompt": {},
    "direct-inversion": {"layers": LAYERS},
    "kv-edit": {},
    "lomoe": {},
    "brushes": {},
    "move": {"moves": [{"region": "box:0,2,8,8", "dx": 4.0}]},
    "steered": {},
}


def make(name, model):
    return EDITORS[name](model, **SETTINGS.get(name, {"num_steps": 6}))


def drawn(model):
    return SDEdit(model).generate(SOURCE, seed=1, num_steps=6)


def gap(first, second):
    return float((first - second).abs().max())


def test_names_are_known_without_a_model():
    assert sorted(EDITORS) == sorted([*ALL, *ELSEWHERE])
    with pytest.raises(UnknownNameError, match="Did you mean 'sdedit'"):
        EDITORS["sdedt"]


@pytest.mark.parametrize("name", ALL)
def test_every_editor_edits_what_every_editor_draws_or_reads(model, name):
    """The seam: one source picture from one seed; an edit repeats itself and does not depend on its neighbours."""
    editor = make(name, model)
    assert isinstance(editor, Editor)
    source = editor.generate(SOURCE, seed=1, num_steps=6)
    assert torch.equal(source.images, drawn(model).images)
    result = editor.edit(source, EDITS)
    assert result.images.shape == (3, 3, SIZE, SIZE) and result.latents.shape == (3, *source.latents.shape[1:])
    assert gap(result.latents, source.latents) > 1e-2
    assert torch.equal(result.latents, editor.edit(source, EDITS).latents)
    alone = editor.edit(source, EDITS[1]).latents
    assert gap(result.latents[1:2], alone) <= 2e-6 * max(5.0, float(alone.abs().max()))  # float32, of the largest
    assert result.recipe["editor"]["name"] == name
    assert json.loads(json.dumps(result.recipe))["edits"] == EDITS
    fewer = {"num_steps": 4} if editor.needs_path else {}
    real = editor.invert(picture(SIZE, 2 * SIZE - 1), SOURCE, height=SIZE, width=2 * SIZE - 1, **fewer)
    assert editor.edit(real, EDITS[0]).images.shape == (1, 3, SIZE, 2 * SIZE - 1)


@pytest.mark.parametrize("name", FROM_PICTURE)
def test_an_encoded_picture_is_a_source_for_all_that_find_their_own_noise(model, name, tmp_path):
    editor = make(name, model)
    source = editor.invert(picture(), SOURCE)
    assert source.nfe == 0 and torch.allclose(source.latents, model.encode_image(picture()[None]))
    inverted = sf.StableFlow(model, layers=LAYERS).invert(picture(), SOURCE, num_steps=2, nudge_scale=1.15)
    first, second = (editor.edit(s, EDITS[0]).latents for s in (source, inverted))
    assert gap(first, second) <= 1e-3
    source.save(tmp_path)
    assert torch.equal(editor.edit(sf.Source.load(tmp_path), EDITS[0]).latents, first)


def test_an_encoded_picture_is_inverted_where_an_editor_asks_for_its_path_and_only_once(model):
    encoded, editor = SDEdit(model).invert(picture(), SOURCE), sf.StableFlow(model, layers=LAYERS, preset="fast")
    first, second = editor.edit(encoded, EDITS), editor.edit(encoded, EDITS)
    direct = editor.edit(editor.invert(picture(), SOURCE), EDITS)
    assert torch.equal(first.latents, direct.latents) and torch.equal(second.latents, direct.latents)
    assert first.recipe["source"] == direct.recipe["source"]
    assert len(encoded.kept) == 1


@pytest.mark.parametrize("name", ["rf-inversion", "rf-solver-edit"])
def test_an_editors_own_inversion_is_made_once_a_source(model, name):
    editor, source = make(name, model), drawn(model)
    first, second = editor.edit(source, EDITS), editor.edit(source, EDITS)
    assert torch.equal(first.latents, second.latents)
    assert second.recipe["nfe"]["edit"] < first.recipe["nfe"]["edit"]
    other = editor.edit(source, EDITS, inversion_guidance_scale=2.0)
    assert other.recipe["nfe"]["edit"] == first.recipe["nfe"]["edit"], "other settings are another path"
    assert gap(other.latents, first.latents) > 1e-3


def test_reprompting_is_sampling_from_the_sources_noise(model):
    again = EDITORS["reprompt"](model).edit(drawn(model), EDITS[0])
    fresh = SDEdit(model).generate(EDITS[0], seed=1, num_steps=6)
    assert torch.equal(again.latents, fresh.latents)


def test_sdedit_at_full_strength_is_plain_generation(model):
    result = SDEdit(model, strength=1.0, num_steps=6, seed=7).edit(drawn(model), EDITS[0])
    assert gap(result.latents, SDEdit(model).generate(EDITS[0], seed=7, num_steps=6).latents) <= 1e-6


def test_sdedit_at_little_strength_keeps_the_picture_and_changes_more_with_more(model):
    source = SDEdit(model).invert(picture(), SOURCE)
    little = SDEdit(model, strength=0.001, num_steps=500).edit(source, EDITS[0])
    assert little.recipe["nfe"]["edit"] == 1 and 0.0 < gap(little.images, source.images) < 0.05
    more = [SDEdit(model, strength=s, num_steps=8).edit(source, EDITS[0]) for s in (0.3, 0.7, 1.0)]
    distances = [float((result.latents - source.latents).square().mean()) for result in (little, *more)]
    assert distances == sorted(distances)


def test_noise_follows_from_the_source_unless_seeded(model):
    editor = SDEdit(model, num_steps=6)
    source = drawn(model)
    start = []
    editor.edit(source, SOURCE, callback=lambda record: start.append(record.previous))
    t = model.time_grid(6, SIZE, SIZE).times
    t = min(t[:-1], key=lambda time: abs(time - 0.7))
    noise = (start[0] - (1 - t) * source.latents) / t
    assert gap(noise, source.noise) > 1.0
    assert (
        gap(dataclasses.replace(editor, seed=1).edit(source, SOURCE).latents, editor.edit(source, SOURCE).latents) > 0
    )


@pytest.mark.parametrize("settings", [{"n_max": 6}, {"n_max": 3, "n_avg": 2}])
def test_flowedit_with_nothing_to_change_returns_the_source(model, settings):
    same = FlowEdit(model, num_steps=6, source_guidance_scale=2.0, target_guidance_scale=2.0, **settings)
    source = drawn(model)
    assert gap(same.edit(source, [SOURCE, SOURCE]).latents, source.latents) <= 1e-5
    assert gap(dataclasses.replace(same, target_guidance_scale=4.0).edit(source, SOURCE).latents, source.latents) > 1e-2


def test_flowedit_costs_and_n_min(model):
    source = drawn(model)
    plain = FlowEdit(model, num_steps=6, n_max=4, n_avg=2)
    assert plain.edit(source, EDITS).recipe["nfe"]["edit"] == 8
    sampled = dataclasses.replace(plain, n_min=3)
    assert sampled.edit(source, EDITS).recipe["nfe"]["edit"] == 1 * 2 + 3
    assert gap(sampled.edit(source, EDITS).latents, plain.edit(source, EDITS).latents) > 1e-2


def test_flowedit_with_n_min_starts_sampling_on_the_targets_noisy_path(model):
    """With equal prompts the difference part stands still, and what is left is SDEdit from the time of n_min."""
    source, times = drawn(model), model.time_grid(6, SIZE, SIZE).times
    states = []
    editor = FlowEdit(model, num_steps=6, n_max=4, n_min=2, source_guidance_scale=2, target_guidance_scale=2, seed=5)
    result = editor.edit(source, SOURCE, callback=lambda record: states.append(record.previous))
    generator = torch.Generator().manual_seed(5)
    noise = [torch.randn(source.latents.shape, generator=generator) for _ in range(3)][-1]
    noisy = (1 - times[4]) * source.latents + times[4] * noise
    assert gap(states[2], noisy) <= 1e-5
    velocity = lambda z, t: model.velocity(z, t, source.conditioning, guidance_scale=2.0)  # noqa: E731
    assert gap(result.latents, integrate(velocity, noisy, sf.flow.time_grid.TimeGrid(times[4:]), Euler())) <= 1e-5


def test_rf_inversion_with_full_eta_returns_the_source(model):
    source = SDEdit(model).invert(picture(), SOURCE)
    kept = RFInversion(model, eta=1.0, t_window=(0.0, 1.0), num_steps=8).edit(source, EDITS)
    assert gap(kept.latents, source.latents) <= 1e-5
    freer = RFInversion(model, eta=1.0, t_window=(0.9, 1.0), num_steps=8).edit(source, EDITS)
    assert gap(freer.latents, source.latents) > 1e-1


def test_rf_inversion_without_control_is_plain_euler_both_ways(model):
    source, grid = drawn(model), model.time_grid(8, SIZE, SIZE)
    result = RFInversion(model, gamma=0.0, eta=0.0, num_steps=8, inversion_prompt=None).edit(source, EDITS[0])
    there = lambda z, t: model.velocity(z, t, source.conditioning, guidance_scale=1.0)  # noqa: E731
    back = lambda z, t: model.velocity(z, t, model.encode_prompt(EDITS[:1]), guidance_scale=3.5)  # noqa: E731
    noise = integrate(there, source.latents, grid.reversed(), Euler())
    assert torch.equal(result.latents, integrate(back, noise, grid, Euler()))


def test_rf_inversion_with_full_gamma_ends_on_the_drawn_noise(model):
    source, states = drawn(model), []
    editor = RFInversion(model, gamma=1.0, eta=0.0, num_steps=8, seed=3)
    editor.edit(source, EDITS[0], callback=lambda record: states.append(record.previous))
    noise = torch.randn(source.latents.shape, generator=torch.Generator().manual_seed(3))
    assert gap(states[0], noise) <= 1e-5


@pytest.mark.parametrize("layers", [None, (0, 1, 2, 3, 4)])
def test_rf_solver_edit_with_the_source_prompt_returns_the_source(model, layers):
    """Injection at every step takes nothing away from the round trip of the midpoint rule, which is of order 2."""
    source, errors = SDEdit(model).invert(picture(), SOURCE), {}
    for steps in (8, 24):
        editor = RFSolverEdit(model, num_steps=steps, inject_steps=steps, layers=layers, guidance_scale=1.0)
        errors[steps] = gap(editor.edit(source, SOURCE).latents, source.latents)
    assert errors[24] < 0.05 * float(source.latents.abs().max()) and errors[24] < errors[8] / 4, errors


def test_rf_solver_edit_injects_and_counts(model):
    source = drawn(model)
    free, some, more = (RFSolverEdit(model, num_steps=4, inject_steps=n).edit(source, EDITS[0]) for n in (0, 1, 4))
    assert gap(free.latents, some.latents) > 1e-2 and gap(some.latents, more.latents) > 1e-2
    assert [r.recipe["nfe"]["edit"] for r in (free, some, more)] == [2 * 4 * 2, 2 * 4 * 2 + 1, 2 * 4 * 2 + 1]


def test_cutting_the_inversion_where_recording_begins_changes_nothing(model):
    source, starts = drawn(model), []
    for inject in (0, 3, 6):
        editor = RFSolverEdit(model, num_steps=6, inject_steps=inject)
        editor.edit(
            source, SOURCE, callback=lambda record: starts.append(record.previous) if not record.index else None
        )
    velocity = lambda z, t: model.velocity(z, t, source.conditioning, guidance_scale=1.0)  # noqa: E731
    whole = integrate(velocity, source.latents, model.time_grid(6, SIZE, SIZE).reversed(), Midpoint())
    assert all(torch.equal(start, whole) for start in starts)


def test_one_part_alone(model):
    """Keys, then values, make both; one alone makes neither."""
    latents = torch.randn(2, *model.latent_shape(SIZE, SIZE), generator=torch.Generator().manual_seed(3))
    conditioning = model.encode_prompt(["a red dog", "a blue cat"])

    def run(*interventions):
        with model.attach(*interventions):
            return model.velocity(latents, 0.8, conditioning, guidance_scale=2.0)

    keys, values, both = (ShareKV(LAYERS, parts=parts) for parts in (("key",), ("value",), ("key", "value")))
    assert torch.equal(run(keys, values), run(both))
    results = [run(), run(keys), run(values), run(both)]
    assert all(gap(results[i], results[j]) > 1e-4 for i in range(4) for j in range(i))
    store = KVStore()
    run(RecordKV(LAYERS, store, ("value",)))
    assert {address.part for address in store.entries} == {"value"}
    assert gap(run(InjectKV(LAYERS, store, parts=("value",)))[1:], run(values)[1:]) <= 1e-6
    for wrong in ((), ("key", "key")):
        with pytest.raises(InputError, match="parts must be some of"):
            ShareKV(LAYERS, parts=wrong)


@pytest.mark.parametrize(
    ("editor", "settings", "message"),
    [
        (SDEdit, {"strength": -0.1}, r"strength must lie in \[0, 1\]"),
        (SDEdit, {"strength": float("nan")}, "strength"),
        (SDEdit, {"num_steps": 0}, r"num_steps must lie in \[1, 10000\], got 0"),
        (FlowEdit, {"n_max": 29}, r"n_max must lie in 1..num_steps, got 29 of 28"),
        (FlowEdit, {"n_max": 0}, "n_max"),
        (FlowEdit, {"n_min": 24}, r"n_min must lie in 0..n_max - 1"),
        (FlowEdit, {"n_avg": 0}, "n_avg must be at least 1"),
        (RFInversion, {"gamma": 1.1}, r"gamma must lie in \[0, 1\]"),
        (RFInversion, {"eta": -0.1}, "eta"),
        (RFInversion, {"t_window": (0.9, 0.5)}, "t_window must be"),
        (RFSolverEdit, {"inject_steps": 16}, r"inject_steps must lie in 0..num_steps, got 16 of 15"),
        (RFSolverEdit, {"layers": (7,)}, r"layers \[7\] are out of range"),
    ],
)
def test_settings_out_of_range(model, editor, settings, message):
    with pytest.raises(InputError, match=message):
        editor(model, **settings)


def test_bad_edits(model):
    editor, source = SDEdit(model, num_steps=4), drawn(model)
    with pytest.raises(InputError, match="at least one edited prompt"):
        editor.edit(source, [])
    with pytest.raises(InputError, match="guidance_scale must lie in"):
        SDEdit(model, num_steps=4, guidance_scale=-1.0).edit(source, EDITS)
    other = sf.wrap(tiny_flux_pipeline(seed=5), name="other")
    with pytest.raises(FingerprintError, match="checkpoint is"):
        SDEdit(other).edit(source, EDITS)
    unguided = sf.wrap(tiny_flux_pipeline(guidance_embeds=False), name="unguided")
    with pytest.warns(UserWarning, match="takes no guidance scale"):
        assert FlowEdit(unguided, num_steps=4, n_max=3).edit(drawn(unguided), EDITS).images.shape[0] == 3
