"""Every registered solver has the order and the cost that it claims."""

import math

import pytest
import torch

from stableflow.errors import InputError, UnknownNameError
from stableflow.flow.integrate import count_evaluations, integrate
from stableflow.flow.solvers import SOLVERS, FixedPoint, describe_solver, make_solver
from stableflow.flow.time_grid import linear_time_grid


def rotation_and_decay(latents, t):
    """dz/dt = A(t) z, time dependent, with a solution in closed form (rotation by sin, decay by t^2 / 2)."""
    x, y = latents.double().unbind(1)
    return torch.stack([math.cos(t) * 3 * -y - t * x, math.cos(t) * 3 * x - t * y], dim=1)


def exact(latents, t0, t1):
    angle, decay = 3 * (math.sin(t1) - math.sin(t0)), math.exp((t0**2 - t1**2) / 2)
    x, y = latents.double().unbind(1)
    c, s = math.cos(angle), math.sin(angle)
    return decay * torch.stack([c * x - s * y, s * x + c * y], dim=1)


def error(solver, num_steps, *, backwards=False):
    grid = linear_time_grid(num_steps)
    grid = grid.reversed() if backwards else grid
    start = torch.tensor([1.0, 0.5], dtype=torch.float64).reshape(1, 2, 1, 1)
    end = _integrate64(solver, start, grid)
    return (end - exact(start, grid.times[0], grid.times[-1])).abs().max().item()


def _integrate64(solver, latents, grid):
    """The steps of `integrate` in float64, since float32 rounding hides second-order errors."""
    state = solver.init(rotation_and_decay, grid.times[0], latents)
    for t0, t1 in grid.steps():
        latents, state = solver.step(rotation_and_decay, t0, t1, latents, state)
    return latents


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("backwards", [False, True])
def test_order_by_fit(name, backwards):
    solver = SOLVERS[name]()
    steps = [20, 40, 80, 160]
    errors = [error(solver, n, backwards=backwards) for n in steps]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:])]
    assert slopes[-1] == pytest.approx(solver.order, abs=0.15), (errors, slopes)


def test_more_fixed_point_iterations_approach_implicit_euler():
    exact_implicit = FixedPoint(40)
    grid = linear_time_grid(20)
    start = torch.ones(1, 2, 1, 1)
    target = _integrate64(exact_implicit, start, grid)
    gaps = [(_integrate64(FixedPoint(k), start, grid) - target).abs().max().item() for k in (1, 2, 4, 8)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-4 * gaps[0]


@pytest.mark.parametrize("name", SOLVERS)
def test_evaluations_per_step(name):
    solver, calls = SOLVERS[name](), []

    def velocity(latents, t):
        calls.append(t)
        return -latents

    latents = torch.ones(1, 1, 2, 2)
    solver.init(velocity, 1.0, latents)
    calls.clear()
    integrate(velocity, latents, linear_time_grid(10), solver)
    started = 1 if name in ("fireflow", "uni_inv") else 0
    assert len(calls) == 10 * solver.evals_per_step + started


@pytest.mark.parametrize("name", SOLVERS)
def test_the_given_latents_are_not_written_to(name):
    latents = torch.ones(1, 1, 2, 2)
    integrate(lambda z, t: -z, latents, linear_time_grid(3), SOLVERS[name]())
    assert torch.equal(latents, torch.ones(1, 1, 2, 2))


def test_descriptions_make_the_same_solver_again():
    for solver in [FixedPoint(3), *[SOLVERS[name]() for name in SOLVERS]]:
        assert make_solver(describe_solver(solver)) == solver


def test_bad_solvers():
    with pytest.raises(UnknownNameError, match=r"eulr.*euler"):
        make_solver("eulr")
    with pytest.raises(InputError, match="iterations must lie"):
        FixedPoint(0)


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 5), ("midpoint", 10), ("heun", 10), ("fireflow", 6)])
def test_evaluations_are_counted_with_those_of_the_start(solver, evaluations):
    assert count_evaluations(make_solver(solver), linear_time_grid(5)) == evaluations
    assert count_evaluations(FixedPoint(3), linear_time_grid(5).reversed()) == 15
