"""ADMM, the alternating direction method of multipliers, for the LASSO."""

from __future__ import annotations

import torch
from torch import Tensor

from fastunroll._checks import check_number
from fastunroll.functional import soft_threshold
from fastunroll.prepared import PreparedDictionary
from fastunroll.solvers.lasso import LassoProblem, SolverResult, StopRule, solve


@torch.no_grad()
def admm(
    measurements: Tensor,
    dictionary: Tensor | PreparedDictionary,
    lam: float,
    *,
    rho: float = 1.0,
    initial: Tensor | None = None,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    check_every: int = 20,
) -> SolverResult:
    """Minimise F(x) = 1/2 ||A x - b||^2 + lam ||x||_1 by ADMM.

        x <- (A^T A + rho I)^{-1} (A^T b + rho (z - w))
        z <- S_{lam/rho}(x + w)
        w <- w + x - z

    Parameters
    ----------
    measurements, dictionary, lam, max_iterations, tolerance, check_every
        As in `ista`.
    rho : float
        Penalty, positive. Every value converges; the best one grows with the square of the atoms'
        norms, and 1 suits atoms of unit norm.
    initial : (batch, n_atoms) or (n_atoms,), optional
        Warm start z_0, with w_0 = A^T (b - A z_0) / rho clipped to +-lam/rho, so that a solution
        stays where it is. By default z_0 = w_0 = 0.

    Returns
    -------
    SolverResult
        ``codes`` is z, the sparse variable, and ``objective`` its F, which need not fall in every
        iteration.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    References
    ----------
    Boyd, Parikh, Chu, Peleato, Eckstein, "Distributed optimization and statistical learning via
    the alternating direction method of multipliers", 2011, sections 4.2.4 and 6.4.
    """
    stop = StopRule(max_iterations, tolerance, check_every)
    problem = LassoProblem.checked(measurements, dictionary, lam)
    rho = check_number("rho", rho, minimum=0.0, exclusive=True)
    z = problem.start(initial)
    w = torch.zeros_like(z)
    if initial is not None:
        w = (problem.residual(z) @ problem.dictionary).clamp(-lam, lam) / rho
    return solve(problem, _Admm(problem, rho, z, w), stop)


class _Admm:
    """The ADMM iteration with its factor computed once; ``codes`` is z."""

    def __init__(self, problem: LassoProblem, rho: float, z: Tensor, w: Tensor) -> None:
        self._problem, self._rho, self._w = problem, rho, w
        self.codes = z
        a = problem.dictionary
        self._wide = a.shape[0] < a.shape[1]
        gram = a @ a.mT if self._wide else a.mT @ a
        gram.diagonal().add_(rho)
        self._factor = torch.linalg.cholesky(gram)
        self._linear = problem.measurements @ a

    def advance(self, count: int) -> Tensor:
        """Run ``count`` iterations and return F(z) of each: (count, batch)."""
        objective = []
        for _ in range(count):
            shifted = self._ridge(self.codes - self._w) + self._w
            self.codes = soft_threshold(shifted, self._problem.lam / self._rho)
            self._w = shifted - self.codes
            objective.append(self._problem.objective(self.codes))
        return torch.stack(objective)

    def _ridge(self, v: Tensor) -> Tensor:
        """Minimiser x of 1/2 ||A x - b||^2 + rho/2 ||x - v||^2: (batch, n_atoms).

        Where m < n only an m x m matrix is factored (Woodbury), in the form without a division by
        rho: x = v + A^T (A A^T + rho I)^{-1} (b - A v).
        """
        if self._wide:
            return v + self._solve(self._problem.residual(v)) @ self._problem.dictionary
        return self._solve(self._linear + self._rho * v)

    def _solve(self, rows: Tensor) -> Tensor:
        """Rows times the inverse of the factored matrix."""
        return torch.cholesky_solve(rows.mT, self._factor).mT
