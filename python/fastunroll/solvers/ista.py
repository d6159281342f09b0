"""ISTA, the iterative shrinkage-thresholding algorithm, and the loop that FISTA shares with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from fastunroll._checks import check_number
from fastunroll.analysis.spectral import lipschitz_constant
from fastunroll.functional import unrolled_prox_gradient
from fastunroll.prepared import PreparedDictionary, prepare
from fastunroll.solvers.lasso import LassoProblem, SolverResult, StopRule, solve


@torch.no_grad()
def ista(
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
    """Minimise F(x) = 1/2 ||A x - b||^2 + lam ||x||_1 by ISTA.

        x_{k+1} = S_{lam step}(x_k - step A^T (A x_k - b))

    Parameters
    ----------
    measurements : (batch, n_measurements) or (n_measurements,)
        b, float32 or float64, finite.
    dictionary : (n_measurements, n_atoms) or PreparedDictionary
        A, or the result of `fastunroll.prepare`.
    lam : float
        Weight of the l1 norm, positive.
    step : float, optional
        Step size; 1/L by default, L = ||A||_2^2. Converges for steps in (0, 2/L).
    initial : (batch, n_atoms) or (n_atoms,), optional
        Warm start x_0; 0 by default. One that meets the tolerance comes back after 0 iterations.
    max_iterations : int
        Largest number of iterations.
    tolerance : float
        Stop once the duality gap is at most ``tolerance`` F(x) for every sample; 0 asks for gaps of
        exactly 0, that is in practice for all iterations. Rounding in float32 keeps the ratio above
        1e-6 to 1e-4, the larger the smaller ``lam``.
    check_every : int
        Iterations between two looks at the gap.

    Returns
    -------
    SolverResult

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
    Daubechies, Defrise, De Mol, "An iterative thresholding algorithm for linear inverse problems
    with a sparsity constraint", Comm. Pure Appl. Math. 57, 2004.
    """
    stop = StopRule(max_iterations, tolerance, check_every)
    return proximal_gradient(measurements, dictionary, lam, step, initial, stop)


def proximal_gradient(
    measurements: Tensor,
    dictionary: Tensor | PreparedDictionary,
    lam: float,
    step: float | None,
    initial: Tensor | None,
    stop: StopRule,
    momentum: Iterator[float] | None = None,
) -> SolverResult:
    """Run ISTA, or with one momentum per iteration an accelerated form of it."""
    problem = LassoProblem.checked(measurements, dictionary, lam)
    codes = problem.start(initial)
    step = _checked_step(step, problem.dictionary)
    prepared = dictionary if isinstance(dictionary, PreparedDictionary) else prepare(dictionary)
    return solve(problem, _ProximalGradient(problem, prepared, step, codes, momentum), stop)


class _ProximalGradient:
    """ISTA and FISTA as chunks of layers of the fused recursion."""

    def __init__(
        self,
        problem: LassoProblem,
        prepared: PreparedDictionary,
        step: float,
        codes: Tensor,
        momentum: Iterator[float] | None,
    ) -> None:
        self._problem, self._prepared, self._step = problem, prepared, step
        self._momentum = momentum
        self._previous: Tensor | None = None
        self.codes = codes

    def advance(self, count: int) -> Tensor:
        """Run ``count`` iterations and return F of each: (count, batch)."""
        momentum = None
        if self._momentum is not None:
            momentum = self.codes.new_tensor(list(islice(self._momentum, count)))
        result = unrolled_prox_gradient(
            self._problem.measurements,
            self._prepared,
            step=self._step,
            threshold=self._problem.lam * self._step,
            n_layers=count,
            momentum=momentum,
            initial=self.codes,
            previous=self._previous,
            objective_weight=self._problem.lam,
            iterates=momentum is not None,
        )
        self.codes = result.codes
        if result.iterates is not None:
            self._previous = result.iterates[-2]
        assert result.objective is not None
        return result.objective[1:]


def _checked_step(step: float | None, dictionary: Tensor) -> float:
    """Return the step, 1/L by default; warn if it is too long."""
    if step is not None:
        check_number("step", step, minimum=0.0, exclusive=True)
    lipschitz = lipschitz_constant(dictionary)
    if step is None:
        return 1.0 / lipschitz
    if step >= 2.0 / lipschitz:
        warnings.warn(
            f"step = {step:g} is outside (0, 2/L) = (0, {2.0 / lipschitz:g}) with "
            f"L = ||A||_2^2 = {lipschitz:g}; the iteration may diverge",
            UserWarning,
            stacklevel=5,  # the caller of the solver, past torch.no_grad
        )
    return step
