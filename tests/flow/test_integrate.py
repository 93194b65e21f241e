import pytest
import torch

from stableflow.errors import InputError, NumericsError
from stableflow.flow.integrate import integrate
from stableflow.flow.inversion import AlignedReplay, Anchored, invert, nudge, unnudge
from stableflow.flow.solvers import SOLVERS, Euler, FixedPoint
from stableflow.flow.time_grid import TimeGrid, linear_time_grid
from stableflow.flow.trajectory import Trajectory


def field(latents, t):
    return torch.sin(1.5 * latents + t) - latents * t


def test_the_convention_noise_at_one_image_at_zero():
    """A straight flow z_t = (1-t) z_0 + t noise has v = noise - z_0; one Euler step from t=1 lands on z_0."""
    image, noise = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    end = integrate(lambda z, t: noise - image, noise, TimeGrid((1.0, 0.0)), Euler())
    assert torch.allclose(end, image, atol=1e-6)


@pytest.mark.parametrize("times", [(1.0,), (1.0, 1.0), (1.0, 0.2, 0.5), (1.2, 0.0), (1.0, float("nan"))])
def test_bad_grids(times):
    with pytest.raises(InputError):
        TimeGrid(times)


def test_states_are_found_by_time_only():
    trajectory = Trajectory()
    trajectory.put(0.5, torch.ones(1, 1, 2, 2, dtype=torch.bfloat16))
    assert trajectory.at(0.5).dtype == torch.float32
    with pytest.raises(InputError, match="nearest is t=0.5"):
        trajectory.at(0.4999)


def test_nan_names_the_step():
    def broken(latents, t):
        return latents * (float("nan") if t < 0.5 else 1.0)

    with pytest.raises(NumericsError, match="Step 4 of 5"):
        integrate(broken, torch.ones(1, 1, 2, 2), linear_time_grid(5), Euler())


def test_callback_sees_every_step_and_an_estimate_of_the_image():
    noise, image, records = torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2), []
    integrate(lambda z, t: noise - image, noise, linear_time_grid(4), Euler(), callback=records.append)
    assert [(r.index, r.t0, r.t1) for r in records] == [
        (0, 1, 0.75),
        (1, 0.75, 0.5),
        (2, 0.5, 0.25),
        (3, 0.25, 0),
    ]
    assert all(torch.allclose(r.estimate(), image, atol=1e-5) for r in records)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_aligned_replay_retraces_the_inversion(iterations):
    torch.manual_seed(0)
    image, grid = torch.randn(1, 4, 8, 8), linear_time_grid(12)
    path = invert(field, image, grid, FixedPoint(iterations))
    visited = []
    end = integrate(
        field,
        path.trajectory.at(1.0),
        grid,
        AlignedReplay(path.offsets),
        callback=lambda r: visited.append(r),
    )
    plain = integrate(field, path.trajectory.at(1.0), grid, Euler())
    assert (end - image).abs().max() < 2e-6
    assert max((r.latents - path.trajectory.at(r.t1)).abs().max() for r in visited) < 2e-6
    assert (plain - image).abs().max() > 1e-3, "plain Euler must miss, or this test shows nothing"


def test_aligned_replay_evaluates_where_the_inversion_did():
    image, grid, there, back = torch.randn(1, 1, 4, 4), linear_time_grid(6), {}, {}

    def watched(seen):
        def velocity(latents, t):
            seen[t] = latents
            return field(latents, t)

        return velocity

    path = invert(watched(there), image, grid, FixedPoint())
    integrate(watched(back), path.trajectory.at(1.0), grid, AlignedReplay(path.offsets))
    assert there.keys() == back.keys()
    assert max((there[t] - back[t]).abs().max() for t in there) < 2e-6


@pytest.mark.parametrize("name", SOLVERS)
def test_round_trip_error_falls_as_steps_rise(name):
    image = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))

    def round_trip(num_steps):
        grid = linear_time_grid(num_steps)
        noise = invert(field, image, grid, SOLVERS[name]()).trajectory.at(1.0)
        return (integrate(field, noise, grid, SOLVERS[name]()) - image).abs().max().item()

    errors = [round_trip(n) for n in (10, 20, 40)]
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_anchored_puts_row_zero_on_the_state_of_the_time_it_reached():
    """The published release looks states up by a wrong negative index; the right state is that of t1."""
    image, grid, seen = torch.randn(1, 1, 4, 4), linear_time_grid(5), []
    path = invert(field, image, grid, FixedPoint())
    start = path.trajectory.at(1.0).expand(3, -1, -1, -1) + torch.arange(3).reshape(3, 1, 1, 1)
    integrate(field, start, grid, Anchored(Euler(), path.trajectory), callback=seen.append)
    free = integrate(field, start, grid, Euler())
    for record in seen:
        assert torch.equal(record.latents[:1], path.trajectory.at(record.t1))
    assert torch.equal(seen[-1].latents[:1], image)
    assert torch.equal(seen[-1].latents[1:], free[1:])


def test_nudging_and_its_undoing():
    latents = torch.randn(1, 1, 2, 2)
    assert torch.allclose(unnudge(nudge(latents, 1.15), 1.15), latents)
    assert torch.equal(nudge(latents, 1.0), latents)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="nudge_scale"):
            nudge(latents, bad)
