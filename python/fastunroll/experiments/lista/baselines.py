"""What nothing is trained for: ISTA, FISTA, and least squares on the true support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastunroll.data.benchmark import BenchmarkProblem
from fastunroll.experiments.lista.settings import LAMBDA
from fastunroll.experiments.lista.training import score
from fastunroll.solvers import SolverResult, fista, ista

LEAST_SQUARES = "least squares on the true support"


def baselines(problem: BenchmarkProblem, n_iterations: int) -> dict[str, dict[str, Any]]:
    """Scores of the solvers after 0 to ``n_iterations`` iterations, and of the floor.

    The floor is what least squares makes of the measurements if the support is known.
    """

    def codes(solver: Callable[..., SolverResult]) -> Callable[[Tensor], Tensor]:
        def solve(b: Tensor, iterations: int) -> Tensor:
            return solver(
                b,
                problem.dictionary,
                LAMBDA,
                max_iterations=iterations,
                tolerance=0.0,
                check_every=iterations,
            ).codes

        def iterates(b: Tensor) -> Tensor:
            found = [solve(b, k) for k in range(1, n_iterations + 1)]
            return torch.stack([torch.zeros_like(found[0]), *found])

        return iterates

    floor = problem.score(least_squares(problem))
    return {
        "ISTA": score(codes(ista), problem),
        "FISTA": score(codes(fista), problem),
        LEAST_SQUARES: {
            "NMSE": floor.nmse_db,
            "median": floor.median_db,
            "worst": floor.worst_db,
        },
    }


@torch.no_grad()
def least_squares(problem: BenchmarkProblem) -> Tensor:
    """Codes (n_test, n_atoms) with the true support that fit the test measurements best."""
    a = problem.test_dictionary.double()
    b, true = problem.test
    codes = torch.zeros_like(true)
    for row, (measured, support) in enumerate(zip(b.double(), true != 0, strict=True)):
        codes[row, support] = torch.linalg.lstsq(a[:, support], measured).solution.to(codes.dtype)
    return codes
