"""The LASSO, F(x) = 1/2 ||A x - b||^2 + lam ||x||_1, and the loop that every solver shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastunroll._checks import (
    check_dictionary,
    check_like,
    check_number,
    check_positive_int,
    check_shape,
    check_tensor,
)
from fastunroll.prepared import PreparedDictionary


class SolverResult(NamedTuple):
    """Result of a LASSO solver (1-D measurements drop the batch axis everywhere)."""

    codes: Tensor
    """Codes after the last iteration: (batch, n_atoms)."""
    objective: Tensor
    """F(x_k) for k = 0..n_iterations: (n_iterations + 1, batch)."""
    gap: Tensor
    """Duality gap of ``codes``, an upper bound of F(x) - min F: (batch,)."""
    n_iterations: int
    """Number of iterations run."""
    converged: bool
    """Whether every sample met the tolerance."""


def lasso_objective(
    codes: Tensor, measurements: Tensor, dictionary: Tensor | PreparedDictionary, lam: float
) -> Tensor:
    """LASSO objective F(x) = 1/2 ||A x - b||^2 + lam ||x||_1 of every sample; differentiable.

    Parameters
    ----------
    codes : (batch, n_atoms) or (n_atoms,)
        x.
    measurements : (batch, n_measurements) or (n_measurements,)
        b, finite.
    dictionary : (n_measurements, n_atoms) or PreparedDictionary
        A.
    lam : float
        Weight of the l1 norm, positive.

    Returns
    -------
    Tensor
        (batch,), or a scalar tensor for 1-D arguments.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    problem = LassoProblem.checked(measurements, dictionary, lam)
    return problem.unbatched(problem.objective(problem.checked_codes("codes", codes)))


def duality_gap(
    codes: Tensor, measurements: Tensor, dictionary: Tensor | PreparedDictionary, lam: float
) -> Tensor:
    """Duality gap of the LASSO for every sample: an upper bound of F(x) - min F.

    Parameters
    ----------
    codes, measurements, dictionary, lam
        As in `lasso_objective`.

    Returns
    -------
    Tensor
        (batch,), or a scalar tensor for 1-D arguments; never negative.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Notes
    -----
    The dual point is the scaled residual theta = s r with r = b - A x, g = A^T r and
    s = min(1, lam / ||g||_inf). The difference F(x) - (b^T theta - 1/2 ||theta||^2) is computed as

        1/2 (1 - s)^2 ||r||^2 + sum_i (lam |x_i| - s x_i g_i),

    a sum of non-negative terms, so that nothing cancels in float32.
    """
    problem = LassoProblem.checked(measurements, dictionary, lam)
    return problem.unbatched(problem.gap(problem.checked_codes("codes", codes)))


@dataclass(frozen=True)
class LassoProblem:
    """A batch of LASSO problems with one dictionary, made of checked arguments by `checked`.

    Attributes
    ----------
    measurements : (batch, n_measurements)
    dictionary : (n_measurements, n_atoms)
    lam : float
    flat : bool
        The measurements came as 1-D, and the results go back so.
    """

    measurements: Tensor
    dictionary: Tensor
    lam: float
    flat: bool

    @classmethod
    def checked(
        cls, measurements: Tensor, dictionary: Tensor | PreparedDictionary, lam: float
    ) -> LassoProblem:
        """Check the arguments and give the measurements their batch axis."""
        b = check_tensor("measurements", measurements, (1, 2))
        if isinstance(dictionary, PreparedDictionary):
            if dictionary.weight is not None:
                raise ValueError("dictionary must be prepared without a weight for the LASSO")
            matrix = dictionary.dictionary
        else:
            matrix = check_dictionary("dictionary", dictionary)
        check_like("measurements", b, "dictionary", matrix)
        flat = b.dim() == 1
        expected = (matrix.shape[0],) if flat else (b.shape[0], matrix.shape[0])
        check_shape("measurements", b, expected, "batch, n_measurements")
        _check_finite("measurements", b)
        lam = check_number("lam", lam, minimum=0.0, exclusive=True)
        return cls(b[None] if flat else b, matrix, lam, flat)

    def checked_codes(self, name: str, codes: Tensor) -> Tensor:
        """Check codes of this problem and give them their batch axis: (batch, n_atoms)."""
        check_like(name, check_tensor(name, codes, (1, 2)), "measurements", self.measurements)
        shape = (self.measurements.shape[0], self.dictionary.shape[1])
        check_shape(name, codes, shape[1:] if self.flat else shape, "batch, n_atoms")
        return codes[None] if self.flat else codes

    def start(self, initial: Tensor | None) -> Tensor:
        """Check and copy a warm start, or make one of zeros: (batch, n_atoms)."""
        if initial is None:
            return self.measurements.new_zeros(len(self.measurements), self.dictionary.shape[1])
        codes = self.checked_codes("initial", initial)
        _check_finite("initial", codes)
        return codes.detach().clone()

    def residual(self, codes: Tensor) -> Tensor:
        """Residual b - A x: (batch, n_measurements)."""
        return self.measurements - codes @ self.dictionary.mT

    def objective(self, codes: Tensor) -> Tensor:
        """F(x): (batch,)."""
        return 0.5 * self.residual(codes).square().sum(-1) + self.lam * codes.abs().sum(-1)

    def gap(self, codes: Tensor) -> Tensor:
        """Duality gap, see `duality_gap`: (batch,)."""
        residual = self.residual(codes)
        correlation = residual @ self.dictionary
        scale = (self.lam / correlation.abs().amax(-1, keepdim=True)).clamp(max=1.0)
        slack = (self.lam * codes.abs() - scale * codes * correlation).clamp(min=0.0)
        return 0.5 * ((1.0 - scale) * residual).square().sum(-1) + slack.sum(-1)

    def unbatched(self, value: Tensor) -> Tensor:
        """Drop the batch axis, which comes first, where the measurements had none."""
        return value[0] if self.flat else value


class Iteration(Protocol):
    """One method at work on a `LassoProblem`."""

    codes: Tensor
    """Current codes x_k: (batch, n_atoms)."""

    def advance(self, count: int) -> Tensor:
        """Run ``count`` iterations and return F of each: (count, batch)."""


@dataclass(frozen=True)
class StopRule:
    """When to stop: all samples at a relative duality gap, or a number of iterations.

    Attributes
    ----------
    max_iterations : int
        At least 1.
    tolerance : float
        Stop once gap <= tolerance * F(x) for every sample; at least 0.
    check_every : int
        Iterations between two looks at the gap; at least 1.
    """

    max_iterations: int
    tolerance: float
    check_every: int

    def __post_init__(self) -> None:
        """Check the three numbers."""
        check_positive_int("max_iterations", self.max_iterations)
        check_number("tolerance", self.tolerance, minimum=0.0)
        check_positive_int("check_every", self.check_every)


def solve(problem: LassoProblem, iteration: Iteration, stop: StopRule) -> SolverResult:
    """Iterate until the stop rule holds; a start that meets the tolerance is left as it is."""
    history = [problem.objective(iteration.codes)[None]]
    n_iterations = 0
    while True:
        gap = problem.gap(iteration.codes)
        converged = bool((gap <= stop.tolerance * history[-1][-1]).all())
        if converged or n_iterations == stop.max_iterations:
            break
        count = min(stop.check_every, stop.max_iterations - n_iterations)
        history.append(iteration.advance(count))
        n_iterations += count
    objective = torch.cat(history)
    return SolverResult(
        problem.unbatched(iteration.codes),
        objective[:, 0] if problem.flat else objective,
        problem.unbatched(gap),
        n_iterations,
        converged,
    )


def _check_finite(name: str, value: Tensor) -> None:
    """Refuse NaN and Inf (ValueError)."""
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} contains NaN or Inf")
