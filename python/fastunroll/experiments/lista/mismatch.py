"""Robustness: networks for the nominal problem on test sets that follow another distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll.data import SparseProblem
from fastunroll.data.seeds import Stream, stream_seed
from fastunroll.experiments.lista.settings import PanelSettings
from fastunroll.experiments.lista.tuning import nmse_on, tune
from fastunroll.nn import ALISTA, HyperLISTA

METHODS = ("HyperLISTA, searched again", "HyperLISTA", "ALISTA, SS")

Panel = tuple[Sequence[float], Callable[[float], SparseProblem]]


def panels(nominal: SparseProblem, s: PanelSettings, seed: int) -> dict[str, Panel]:
    """Values of each panel, and what makes the problem of a value."""

    def perturbed(size: float) -> SparseProblem:
        dictionary = perturb(nominal.dictionary, size, _generator(seed, "dictionary"))
        return replace(nominal, dictionary=dictionary)

    return {
        "density": (s.densities, lambda value: replace(nominal, density=value)),
        "variance": (s.variances, lambda value: replace(nominal, amplitude_std=value**0.5)),
        "SNR": (s.snrs, lambda value: replace(nominal, snr_db=value)),
        "perturbation": (s.perturbations, perturbed),
    }


def perturb(dictionary: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Add noise of a standard deviation to every entry, and scale the columns to unit norm."""
    error = torch.randn(dictionary.shape, generator=generator, dtype=dictionary.dtype)
    return normalize(dictionary + size * error, dim=0)


@torch.no_grad()
def mismatch(
    panel: Panel, hyperlista: HyperLISTA, alista: ALISTA, s: PanelSettings, seed: int
) -> dict[str, Any]:
    """NMSE in dB of every method at every value of a panel.

    The networks keep the nominal dictionary. HyperLISTA is searched again with validation samples
    of the problem at hand, where the nominal numbers count as found, and is also run with these.

    Returns
    -------
    dict
        ``"values"``, and a list for each of `METHODS`.
    """
    values, problem_of = panel
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for value in values:
        problem = problem_of(value)
        validation = problem.sample(s.n_validation, _generator(seed, "validation"))
        test = problem.sample(s.n_test, _generator(seed, "test"))
        again = deepcopy(hyperlista)
        tune(again, validation, validation, s.n_evaluations)
        again = min(again, hyperlista, key=partial(nmse_on, batch=validation))
        for name, network in zip(METHODS, (again, hyperlista, alista), strict=True):
            found[name].append(nmse_on(network, test))
    return {"values": list(values), **found}


def _generator(seed: int, stream: Stream) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream))
