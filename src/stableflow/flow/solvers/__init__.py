"""Update rules, one a file. `SOLVERS` maps the public names to them; a solver's `order` is checked by fit."""

from stableflow.flow.solvers.base import SOLVERS, Solver, describe_solver, make_solver
from stableflow.flow.solvers.euler import Euler
from stableflow.flow.solvers.fireflow import FireFlow
from stableflow.flow.solvers.fixed_point import FixedPoint
from stableflow.flow.solvers.heun import Heun
from stableflow.flow.solvers.midpoint import Midpoint
from stableflow.flow.solvers.uni_inv import UniInv

__all__ = [
    "SOLVERS",
    "Euler",
    "FireFlow",
    "FixedPoint",
    "Heun",
    "Midpoint",
    "Solver",
    "UniInv",
    "describe_solver",
    "make_solver",
]
