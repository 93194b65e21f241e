"""EDICT: its step is undone exactly."""

import pytest
import torch
from on_families import SOURCE, check_end_to_end, made, on_two_families

from stableflow.editing import EDITORS
from stableflow.errors import InputError
from stableflow.flow.solvers.edict import Coupled
from stableflow.flow.time_grid import linear_time_grid


def toy(z, t):
    weights = torch.tensor([[0.3, -1.1, 0.4], [0.9, 0.2, -0.7], [-0.5, 0.8, 0.6]], dtype=z.dtype)
    return torch.einsum("dc,bchw->bdhw", weights, torch.tanh(2 * z)) * (1 + t)


def walked(pair, grid, p):
    for t0, t1 in grid.steps():
        pair, _ = Coupled(p).step(toy, t0, t1, pair, None)
    return pair


@pytest.mark.parametrize("p", [0.93, 0.97, 1.0])
def test_up_and_down_again_is_the_same_pair(p):
    """Also of a pair that has drifted apart, and in either order of the two directions."""
    grid = linear_time_grid(28)
    pair = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    up = walked(pair, grid.reversed(), p)
    assert (up - pair).abs().max() > 0.1
    assert (walked(up, grid, p) - pair).abs().max() <= 1e-12
    assert (walked(walked(pair, grid, p), grid.reversed(), p) - pair).abs().max() <= 1e-12


def test_of_a_steady_field_it_is_eulers_step():
    pair = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    moved, _ = Coupled(0.9).step(lambda z, t: torch.ones_like(z), 1.0, 0.75, pair, None)
    assert torch.allclose(moved, torch.full_like(moved, -0.25))


@on_two_families
def test_the_sources_own_prompt_returns_the_source(family):
    """float32 through 1 / p a step, at the scale of the edits themselves."""
    editor, source = made("edict", family, num_steps=12, strength=1.0)
    gap = float((editor.edit(source, SOURCE).latents - source.latents).abs().max())
    assert gap <= 1e-5, gap
    assert float((editor.edit(source, "a red cat").latents - source.latents).abs().max()) > 1e-2


def test_mixing_follows_the_number_of_steps(model):
    products = [EDITORS["edict"](model, num_steps=n).solver.p ** n for n in (10, 28, 50)]
    assert max(products) - min(products) <= 1e-12
    assert EDITORS["edict"](model, p=0.9).solver.p == 0.9
    with pytest.raises(InputError, match="p must"):
        EDITORS["edict"](model, p=0.0)


@on_two_families
def test_end_to_end(family):
    check_end_to_end("edict", family, num_steps=6)
