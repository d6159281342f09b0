"""Global search for a few numbers of a model, where gradients are of no use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastunroll._checks import check_number, check_positive_int
from fastunroll._optional import import_optional

Model = TypeVar("Model", bound=nn.Module)

_FIRST_STEP = 0.05
"""First change of a parameter in `refine`, as a fraction of its range."""

_WORST = 1e9
"""Stands for NaN and infinity, which the search could not compare."""


@torch.no_grad()
def search(
    model: Model,
    ranges: Mapping[str, tuple[float, float]],
    evaluate: Callable[[Model], float],
    *,
    n_evaluations: int = 500,
) -> float:
    """Set scalar parameters of a model to the values that ``evaluate`` likes best.

    DIRECT (Jones, Perttunen, Stuckman 1993), which divides the box of the parameters' logarithms,
    takes four fifths of the evaluations; `refine` goes on from its result with the rest. Nothing is
    random.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    ranges : mapping of str to (float, float)
        Names of scalar parameters, as in ``model.named_parameters()``, and the positive range of
        each.
    evaluate : callable
        Returns what is to be small, such as an NMSE in dB on validation data. NaN counts as worst.
    n_evaluations : int
        About how often ``evaluate`` is called.

    Returns
    -------
    float
        The best value of ``evaluate``; the parameters are set to those it belongs to.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    TypeError, ValueError
        If an argument is not as above, or ``evaluate`` is NaN or infinite throughout.

    Examples
    --------
    Three numbers for `fastunroll.nn.HyperLISTA`::

        network = HyperLISTA(problem.dictionary)
        b, codes = problem.sample(1000, torch.Generator().manual_seed(0))
        search(network, network.ranges, lambda net: nmse_db(net(b), codes))
    """
    optimize = import_optional("scipy.optimize")
    check_positive_int("n_evaluations", n_evaluations)
    box = _Box(model, ranges, evaluate)
    optimize.direct(box.value, box.bounds, maxfun=math.ceil(0.8 * n_evaluations))
    if not box.best:
        raise ValueError("evaluate must be finite somewhere in the ranges, but was so nowhere")
    box.set(box.best)
    return refine(model, ranges, evaluate, n_evaluations=math.ceil(0.2 * n_evaluations))


@torch.no_grad()
def refine(
    model: Model,
    ranges: Mapping[str, tuple[float, float]],
    evaluate: Callable[[Model], float],
    *,
    n_evaluations: int = 100,
) -> float:
    """Improve scalar parameters of a model, from the values they have, by the Nelder-Mead method.

    Parameters, result and errors are those of `search`. Values outside their range start at its
    end.
    """
    optimize = import_optional("scipy.optimize")
    check_positive_int("n_evaluations", n_evaluations)
    box = _Box(model, ranges, evaluate)
    start = [
        min(max(math.log(max(parameter.item(), math.exp(low))), low), high)
        for parameter, (low, high) in zip(box.parameters, box.bounds, strict=True)
    ]
    # The first simplex leads into the box; SciPy's own is flat where it starts at a face.
    steps = [
        _FIRST_STEP * (high - low if x < (low + high) / 2 else low - high)
        for x, (low, high) in zip(start, box.bounds, strict=True)
    ]
    simplex = np.vstack([np.zeros(len(steps)), np.diag(steps)]) + start
    options = {"maxfev": n_evaluations, "initial_simplex": simplex}
    optimize.minimize(box.value, start, method="Nelder-Mead", bounds=box.bounds, options=options)
    if not box.best:
        raise ValueError("evaluate must be finite near the parameters, but was so nowhere")
    box.set(box.best)
    return box.lowest


class _Box(Generic[Model]):
    """A model as a function of the logarithms of its parameters, with the lowest value so far."""

    def __init__(
        self,
        model: Model,
        ranges: Mapping[str, tuple[float, float]],
        evaluate: Callable[[Model], float],
    ) -> None:
        self.model, self.evaluate = model, evaluate
        self.parameters = _checked_parameters(model, ranges)
        self.bounds = [(math.log(low), math.log(high)) for low, high in ranges.values()]
        self.lowest = math.inf
        self.best: list[float] = []

    def set(self, logarithms: Sequence[float]) -> None:
        """Give the parameters their values."""
        for parameter, logarithm in zip(self.parameters, logarithms, strict=True):
            parameter.fill_(math.exp(logarithm))

    def value(self, logarithms: NDArray[Any]) -> float:
        """What ``evaluate`` finds there, or the worst there is."""
        self.set(logarithms.tolist())
        found = float(self.evaluate(self.model))
        if found < self.lowest:
            self.lowest, self.best = found, logarithms.tolist()
        return found if found < _WORST else _WORST  # NaN is not less than anything


def _checked_parameters(
    model: nn.Module, ranges: Mapping[str, tuple[float, float]]
) -> list[nn.Parameter]:
    """The parameters that ``ranges`` names, if it fits."""
    if not ranges:
        raise ValueError("ranges must name at least one parameter")
    known = {name: p for name, p in model.named_parameters() if p.dim() == 0}
    for name, (low, high) in ranges.items():
        if name not in known:
            raise ValueError(
                f"ranges names {name!r}, but the scalar parameters of the model are "
                f"{', '.join(known) or 'none'}"
            )
        low = check_number(f"ranges[{name!r}][0]", low, minimum=0.0, exclusive=True)
        check_number(f"ranges[{name!r}][1]", high, minimum=low, exclusive=True)
    return [known[name] for name in ranges]
