"""The classical methods that networks are compared with, and the tuning of their parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor

from fastunroll.prepared import PreparedDictionary
from fastunroll.solvers import SolverResult, admm, fista, ista

Encoder: TypeAlias = Callable[[Tensor], Tensor]
"""From measurements (batch, n_measurements) to codes (batch, n_atoms)."""

Range: TypeAlias = tuple[float, float]

LAMBDA_RANGE: Range = (1e-3, 1.0)
RHO_RANGE: Range = (1e-3, 10.0)
SOLVERS: dict[str, Callable[..., SolverResult]] = {"ISTA": ista, "FISTA": fista, "ADMM": admm}


@dataclass(frozen=True)
class Method:
    """A solver with its parameters, stopped after a fixed number of iterations.

    Attributes
    ----------
    name : {"ISTA", "FISTA", "ADMM"}
    parameters : tuple of float
        (lambda,), and (lambda, rho) for ADMM.
    n_iterations : int
    """

    name: str
    parameters: tuple[float, ...]
    n_iterations: int

    def solve(self, measurements: Tensor, dictionary: Tensor | PreparedDictionary) -> SolverResult:
        """Run all iterations from zero."""
        lam, *rho = self.parameters
        return SOLVERS[self.name](
            measurements,
            dictionary,
            lam,
            max_iterations=self.n_iterations,
            check_every=self.n_iterations,
            tolerance=0.0,
            **({"rho": rho[0]} if rho else {}),
        )

    def encoder(self, dictionary: Tensor | PreparedDictionary) -> Encoder:
        """Function from measurements to codes."""
        return lambda measurements: self.solve(measurements, dictionary).codes


def tune(
    name: str,
    measurements: Tensor,
    dictionary: Tensor | PreparedDictionary,
    error: Callable[[Tensor], float],
    n_iterations: int,
    *,
    points: int = 9,
    rounds: int = 3,
) -> Method:
    """Find the parameters with the smallest error of the codes of some validation measurements.

    A logarithmic grid is searched, then again and again a finer one around its best point. ADMM has
    more than one good region, so the first grid must not be coarse. Lambda is searched in units of
    the largest useful one, the median of ||A^T b||_inf; rho, in units of the largest squared norm
    of an atom.

    Parameters
    ----------
    name : {"ISTA", "FISTA", "ADMM"}
    measurements : (batch, n_measurements)
    dictionary : (n_measurements, n_atoms) or PreparedDictionary
    error : callable
        ``error(codes)``; lower is better.
    n_iterations : int
    points : int
        Points of the grid along each axis.
    rounds : int
        Number of grids.
    """
    matrix = dictionary.dictionary if isinstance(dictionary, PreparedDictionary) else dictionary
    largest = float((measurements @ matrix).abs().amax(dim=1).median())
    energy = float(matrix.square().sum(dim=0).max())
    ranges = [_scaled(LAMBDA_RANGE, largest)]
    if name == "ADMM":
        ranges.append(_scaled(RHO_RANGE, energy))

    def candidate(parameters: tuple[float, ...]) -> Method:
        return Method(name, parameters, n_iterations)

    def value(parameters: tuple[float, ...]) -> float:
        return error(candidate(parameters).solve(measurements, dictionary).codes)

    best: tuple[float, ...] = ()
    for _ in range(rounds):
        best = min(itertools.product(*(_grid(r, points) for r in ranges)), key=value)
        ranges = [_around(x, r, points) for x, r in zip(best, ranges, strict=True)]
    return candidate(best)


def _scaled(bounds: Range, unit: float) -> Range:
    return bounds[0] * unit, bounds[1] * unit


def _grid(bounds: Range, points: int) -> Sequence[float]:
    return [float(x) for x in np.geomspace(*bounds, points)]


def _around(centre: float, bounds: Range, points: int) -> Range:
    """One old grid spacing to either side."""
    spacing = (bounds[1] / bounds[0]) ** (1 / (points - 1))
    return centre / spacing, centre * spacing
