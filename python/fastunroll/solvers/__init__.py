"""Classical solvers of the LASSO: one method, one file."""

from fastunroll.solvers.admm import admm
from fastunroll.solvers.fista import fista
from fastunroll.solvers.ista import ista
from fastunroll.solvers.lasso import SolverResult, duality_gap, lasso_objective

__all__ = ["SolverResult", "admm", "duality_gap", "fista", "ista", "lasso_objective"]
