"""Fixed points of a layer, sample by sample: plain iteration and Anderson acceleration."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ALLOWED, _DECREASE = 10.0, 0.99
"""An extrapolated point is kept if its residual is at most 10 * 0.99^j that of the start, where j
counts the kept points. A test for a lower residual than before would drop many good points."""

_FARTHEST = 2.0
"""Nor may it be more than twice as long as the plain iterate: where f moves far points by little
only, as in the null space of A, a small residual says nothing."""


class FixedPoint(NamedTuple):
    """Result of `solve_fixed_point`."""

    codes: Tensor
    """The last f(x): (batch, n_atoms)."""
    residual: Tensor
    """||f(x) - x||_2 of the last x: (batch,)."""
    n_iterations: Tensor
    """Number of iterations of every sample: (batch,), int64."""


@torch.no_grad()
def solve_fixed_point(
    layer: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    *,
    memory: int,
    max_iterations: int,
    tolerance: float,
) -> FixedPoint:
    """Solve x = f(x) for every sample.

    A sample is done once ||f(x) - x|| <= tolerance ||f(x)||, and is then left out; one that is no
    longer finite is given up. Anderson acceleration (type II) extrapolates the last ``memory``
    values of f with the affine combination of smallest residual. The extrapolated point is kept if
    its residual is below a bound that falls with every kept point, and if it is not much longer
    than the plain iterate f(x), which takes its place otherwise. So the residual goes to 0 where f
    is averaged, as the plain iteration's does.

    Parameters
    ----------
    layer : callable
        ``layer(x, rows)`` returns f(x) for the codes x (len(rows), n_atoms) of some samples.
    start : (batch, n_atoms)
        First x.
    memory : int
        Values that Anderson acceleration combines; 1 is the plain iteration.
    max_iterations : int
        Most iterations. Each evaluates f once, or twice where an extrapolated point is dropped.
    tolerance : float
        Relative residual at which to stop.

    Returns
    -------
    FixedPoint

    References
    ----------
    Walker, Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49, 2011;
    the safeguard follows Zhang, O'Donoghue, Boyd, "Globally convergent type-I Anderson acceleration
    for nonsmooth fixed-point iterations", SIAM J. Optim. 30, 2020.
    """
    rows = torch.arange(len(start), device=start.device)
    points, values = [start], [layer(start, rows)]
    codes, residuals = values[0].clone(), _norm(values[0] - start)
    counts, bound = torch.ones_like(rows), _ALLOWED * residuals
    for iteration in range(1, max_iterations + 1):
        residual = _norm(values[-1] - points[-1])
        codes[rows], residuals[rows], counts[rows] = values[-1], residual, iteration
        going = residual > tolerance * _norm(values[-1])  # False for NaN, too
        if iteration == max_iterations or not bool(going.any()):
            break
        if not bool(going.all()):
            rows, bound = rows[going], bound[going]
            points, values = ([t[going] for t in history] for history in (points, values))
        if len(points) > 1:
            point = _extrapolate(points, values)
            value = layer(point, rows)
            near = _norm(point) <= _FARTHEST * _norm(values[-1])
            dropped = ~(near & (_norm(value - point) <= bound))
            bound = torch.where(dropped, bound, _DECREASE * bound)
            if bool(dropped.any()):
                point[dropped] = values[-1][dropped]
                value[dropped] = layer(point[dropped], rows[dropped])
        else:
            point = values[-1]
            value = layer(point, rows)
        points, values = [*points, point][-memory:], [*values, value][-memory:]
    return FixedPoint(codes, residuals, counts)


def _extrapolate(points: list[Tensor], values: list[Tensor]) -> Tensor:
    """Affine combination of the values whose combined residual is smallest: (batch, n_atoms)."""
    stacked = torch.stack(values, dim=1)
    residuals = stacked - torch.stack(points, dim=1)
    gram = residuals @ residuals.mT
    ridge = torch.finfo(gram.dtype).eps ** 0.75 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    gram.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    weights, _ = torch.linalg.solve_ex(gram, gram.new_ones(len(gram), len(points)))
    weights = weights / weights.sum(dim=1, keepdim=True)
    return torch.bmm(weights[:, None], stacked)[:, 0]


def _norm(codes: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(codes, dim=1)
    return norm
