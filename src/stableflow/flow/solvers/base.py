"""What a solver is, and the names of the known ones."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from stableflow.errors import InputError
from stableflow.reading import short
from stableflow.registry import Registry
from stableflow.types import Velocity


@runtime_checkable
class Solver(Protocol):
    """One update rule for dz/dt = v(z, t); the direction is nothing but t0 -> t1."""

    @property
    def order(self) -> int:
        """Global error falls as (step size) ** order."""
        ...

    @property
    def evals_per_step(self) -> int:
        """Evaluations of v in one step, not counting `init`."""
        ...

    def init(self, velocity: Velocity, t0: float, latents: Tensor) -> Any:
        """Return the state before the first step; may evaluate v once."""
        ...

    def step(self, velocity: Velocity, t0: float, t1: float, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the latents at t1 and the next state. `latents` is not written to."""
        ...


SOLVERS: Registry[Callable[..., Solver]] = Registry("solver")


def make_solver(solver: str | Mapping[str, Any] | Solver) -> Solver:
    """Return the solver itself, or one by its name or its description.

    Raises:
        UnknownNameError: No solver has this name.
        InputError: It is none of these, or a setting is out of place.
    """
    if isinstance(solver, str):
        return SOLVERS[solver]()
    if isinstance(solver, Mapping):
        name, settings = solver.get("name"), {key: value for key, value in solver.items() if key != "name"}
        if not isinstance(name, str):
            raise InputError(f"solver must have a name ({', '.join(SOLVERS)}), got {short(dict(solver))}.")
        try:
            return SOLVERS[name](**settings)
        except (TypeError, InputError) as error:
            raise InputError(f"solver {name!r} does not take {short(settings)}: {error}") from error
    if isinstance(solver, type) or not isinstance(solver, Solver):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"solver must be a name ({', '.join(SOLVERS)}), its description or a solver such as Euler(), got "
            f"{short(solver)}."
        )
    return solver


def describe_solver(solver: Solver) -> dict[str, Any]:
    """Return the name and settings of a registered solver, so that `make_solver` can make it again."""
    for name, known in SOLVERS.items():
        if known is type(solver):
            return {"name": name, **vars(solver)}
    raise InputError(
        f"{type(solver).__name__} is no registered solver, so its source could not be repeated. Register it: "
        "put @SOLVERS.register('name') above its class."
    )
