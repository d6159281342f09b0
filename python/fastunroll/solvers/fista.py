"""FISTA, the accelerated form of ISTA."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fastunroll.prepared import PreparedDictionary
from fastunroll.solvers.ista import proximal_gradient
from fastunroll.solvers.lasso import SolverResult, StopRule


@torch.no_grad()
def fista(
    measurements: Tensor,
    dictionary: Tensor | PreparedDictionary,
    lam: float,
    *,
    step: float | None = None,
    initial: Tensor | None = None,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    check_every: int = 20,
) -> SolverResult:
    """Minimise F(x) = 1/2 ||A x - b||^2 + lam ||x||_1 by FISTA.

        y = x_k + (t_{k-1} - 1) / t_k (x_k - x_{k-1}),   t_k = (1 + sqrt(1 + 4 t_{k-1}^2)) / 2
        x_{k+1} = S_{lam step}(y - step A^T (A y - b))

    Parameters
    ----------
    measurements, dictionary, lam, initial, max_iterations, tolerance, check_every
        As in `ista`; the momentum starts anew at ``initial``.
    step : float, optional
        Step size; 1/L by default, L = ||A||_2^2, which is also the longest step for which
        convergence is proved.

    Returns
    -------
    SolverResult
        The objective need not fall in every iteration.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Warns
    -----
    UserWarning
        If the step is not below 2/L.

    References
    ----------
    Beck, Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems", SIAM J. Imaging Sci. 2, 2009, eqs. (4.1)-(4.3).
    """
    stop = StopRule(max_iterations, tolerance, check_every)
    return proximal_gradient(
        measurements, dictionary, lam, step, initial, stop, nesterov_momentum()
    )


def nesterov_momentum() -> Iterator[float]:
    """Momentum of FISTA in iteration k = 0, 1, ...; 0 for the first, which has no x_{k-1}."""
    yield 0.0
    t = 1.0
    while True:
        following = (1.0 + math.sqrt(1.0 + 4.0 * t * t)) / 2.0
        yield (t - 1.0) / following
        t = following
