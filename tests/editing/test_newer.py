"""FlowAlign, Uni-Edit, DNAEdit, SteerFlow, null-text: each rule written out, what it returns, and its cost."""

import pytest
import torch
from on_families import EDITS, SOURCE, check_end_to_end, made, on_two_families

from stableflow.editing import EDITORS
from stableflow.editing.beside import spread
from stableflow.editing.methods.dnaedit import NoiseAlignment
from stableflow.editing.methods.steerflow import changing
from stableflow.errors import InputError
from stableflow.flow.integrate import integrate
from stableflow.flow.inversion import invert
from stableflow.flow.solvers import Euler, UniInv
from stableflow.flow.time_grid import linear_time_grid

WEIGHTS = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SHAPE = (1, 3, 4, 5)


def toy(z, t):
    return torch.einsum("dc,bchw->bdhw", WEIGHTS, torch.tanh(z)) * (1 + t) - 0.3 * z


def drawn(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(first, second):
    return float((first - second).abs().max())


def first_step(editor, source, edit):
    seen = []
    editor.edit(source, edit, callback=seen.append)
    return seen[0]


def asked(model, z, t, prompt, scale=1.0):
    return model.velocity(z, t, model.encode_prompt([prompt]), guidance_scale=scale)


def test_uni_inv_is_undone_by_eulers_steps_to_second_order():
    gaps = []
    for steps in (32, 64):
        grid, clean = linear_time_grid(steps), drawn(2).float()
        noise = integrate(toy_float, clean, grid.reversed(), UniInv())
        gaps.append(gap(integrate(toy_float, noise, grid, Euler()), clean))
    plain = integrate(toy_float, integrate(toy_float, clean, grid.reversed(), Euler()), grid, Euler())
    assert gaps[1] < gaps[0] / 3 and gaps[1] < gap(plain, clean) / 3, gaps


def toy_float(z, t):
    return toy(z.double(), t).float()


def test_an_aligned_noise_is_where_the_velocity_says_that_it_is():
    """After each step picture, state and noise are on one line, and replay at the offsets returns the picture."""
    clean, noise, t0, t1 = drawn(2), drawn(3), 0.2, 0.5
    solver = NoiseAlignment(noise)
    state, led = solver.step(toy, t0, t1, clean, noise)
    v = toy(clean + (t1 - t0) * (noise - clean) / (1 - t0), t1)
    assert gap(state, clean + (t1 - t0) * v) <= 1e-12 and gap(led, clean + (1 - t0) * v) <= 1e-12
    found = invert(toy_float, clean.float(), linear_time_grid(6), NoiseAlignment(noise.float()))
    z = found.trajectory.at(1.0)
    for t0, t1 in linear_time_grid(6).steps():
        z = z + (t1 - t0) * toy_float(z + found.offsets[t0], t0)
    assert gap(z, clean.float()) <= 1e-5


def test_maps():
    amount = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]], [[[4.0, 4.0], [4.0, 4.0]]]])
    assert torch.equal(spread(amount)[0, 0], torch.tensor([[0.0, 0.25], [0.5, 1.0]])) and not spread(amount)[1].any()
    turn = torch.zeros(1, 2, 12, 12)
    turn[..., 2:9, 2:9] = 1.0
    turn[..., 5, 5] = 0.0  # a hole, narrower than the closing
    where = changing(turn)[0, 0]
    assert where[5, 5] > 0.99 and where[3, 3] > 0.99 and where[11, 11] < 0.01


@on_two_families
def test_flowalign_written_out(family):
    editor, source = made("flowalign", family, num_steps=4, weight=3.0, pull=0.2, seed=5)
    step, model, clean = first_step(editor, source, EDITS[0]), editor.model, source.latents
    t = step.t0
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    q = (1 - t) * clean + t * noise
    v_q, other, wished = asked(model, q, t, SOURCE), asked(model, q, t, SOURCE), asked(model, q, t, EDITS[0])
    v_p = other + 3.0 * (wished - other)
    expected = clean + (step.t1 - t) * (v_p - v_q) + 0.2 * ((q - t * v_q) - (q - t * v_p))
    assert gap(step.latents, expected) <= 1e-5
    assert gap(editor.edit(source, SOURCE).latents, clean) <= 1e-5, "its own prompt returns the source"
    slider = editor.having(pull=0.0, opposite=EDITS[1])
    step = first_step(slider, source, EDITS[0])
    other = asked(model, q, t, EDITS[1])
    assert gap(step.latents, clean + (step.t1 - t) * ((other - v_q) + 3.0 * (wished - other))) <= 1e-5


@on_two_families
def test_uniedit_written_out(family):
    editor, source = made("uniedit", family, num_steps=4, share=0.5, omega=2.0)
    step, model = first_step(editor, source, EDITS[0]), editor.model
    own, wished = (asked(model, step.previous, step.t0, prompt) for prompt in (SOURCE, EDITS[0]))
    turn = wished - own
    where = turn.abs().mean(1, keepdim=True)
    where = (where - where.min()) / (where.max() - where.min())
    fused = where * wished + (1 - where) * own
    dt = step.t1 - step.t0
    assert gap(step.latents, step.previous + dt * fused + 2.0 * dt * (1 + where) * turn) <= 1e-4
    gaps = [gap(editor.edit(source, SOURCE, num_steps=n).latents, source.latents) for n in (8, 32)]
    assert gaps[1] < gaps[0] / 4, gaps


@on_two_families
def test_dnaedit_retraces_and_moves_its_target(family):
    editor, source = made("dnaedit", family, num_steps=6, skip=1, target_guidance_scale=1.5)
    assert gap(editor.edit(source, SOURCE, hold=1.0).latents, source.latents) <= 1e-5
    step = first_step(editor, source, EDITS[0])
    (z, target), (after, moved) = step.previous.chunk(2, dim=1), step.latents.chunk(2, dim=1)
    path = next(iter(source.kept.values()))
    v = asked(editor.model, z + path.offsets[step.t0], step.t0, EDITS[0], 1.5)
    own = asked(editor.model, z + path.offsets[step.t0], step.t0, SOURCE, 1.5)
    dt = step.t1 - step.t0
    assert gap(target, source.latents) == 0.0 and gap(moved, target + dt * (v - own)) <= 1e-4
    assert gap(after, z + dt * (0.85 * v + 0.15 * (z - moved) / step.t0)) <= 1e-4


@on_two_families
def test_steerflow_asks_once_a_step_and_keeps_the_source(family):
    editor, source = made("steerflow", family, num_steps=6, guidance_scale=1.0)
    counts = [editor.edit(source, EDITS[0]).recipe["nfe"]["edit"] for _ in range(2)]
    assert counts == [7 + 6, 6]
    own, other = (editor.edit(source, prompt).latents for prompt in (SOURCE, EDITS[1]))
    assert gap(own, source.latents) < gap(other, source.latents) / 2


def test_null_text_makes_guided_sampling_retrace_the_source():
    editor, source = made("null-text", "SD3", num_steps=4, guidance_scale=4.0, fits=0)
    plain, fitted = (editor.edit(source, SOURCE, fits=n) for n in (0, 10))
    assert gap(fitted.latents, source.latents) < gap(plain.latents, source.latents)
    assert float((fitted.latents - source.latents).square().mean()) < 0.8 * float(
        (plain.latents - source.latents).square().mean()
    )
    again = editor.edit(source, EDITS[0], fits=10)
    assert again.recipe["nfe"]["edit"] == 4, "fitted once a source"
    editor, source = made("null-text", "FLUX.1", num_steps=4)
    with pytest.raises(InputError, match="no classifier-free guidance"):
        editor.edit(source, EDITS)
    with pytest.raises(InputError, match="leave it out"):
        EDITORS["null-text"](editor.model, negative="blurred")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("flowalign", {"num_steps": 6}),
        ("uniedit", {"num_steps": 6}),
        ("dnaedit", {"num_steps": 6, "skip": 1}),
        ("steerflow", {"num_steps": 6}),
    ],
)
@on_two_families
def test_end_to_end(family, name, settings):
    check_end_to_end(name, family, **settings)


@pytest.mark.parametrize("family", ["SD3", "SD3.5-medium"])
def test_null_text_end_to_end(family):
    check_end_to_end("null-text", family, num_steps=4, fits=1)
