"""Recovery problems whose iterates have a wanted density, and our own networks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastunroll.analysis import analytic_weight, lipschitz_constant
from fastunroll.data import SparseBatch, SparseProblem, make_sparse_problem
from fastunroll.functional import prox_gradient_step, soft_threshold, unrolled_prox_gradient
from fastunroll.prepared import prepare
from fastunroll.program import Program

TRUE_DENSITY = 0.1
DICTIONARY_NON_ZEROS = 20
"""Non-zeros of a true code where a dictionary is learned, as in PUDLE's experiment."""

CALIBRATION_BATCH = 256
UNTIED_SPREAD = 0.02
"""Relative difference between the weights of the layers, where each layer has its own."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A K-layer network whose iterates have the wanted density."""

    source: SparseProblem
    weight: Tensor
    """Analysis weights W: (m, n), or (K, m, n) where each layer has its own."""
    steps: Tensor
    """(K,)"""
    thresholds: Tensor
    """(K,), calibrated."""

    @property
    def dictionary(self) -> Tensor:
        """A: (m, n)."""
        return self.source.dictionary

    @property
    def program(self) -> Program[Any]:
        """The network for `fastunroll.runtime`."""
        return Program(
            dictionary=self.dictionary.numpy(),
            weight=self.weight.numpy(),
            step=self.steps.numpy(),
            threshold=self.thresholds.numpy(),
        )

    def sample(self, batch: int, seed: int) -> SparseBatch:
        """Measurements (batch, m) and their true codes (batch, n)."""
        return self.source.sample(batch, torch.Generator().manual_seed(seed))

    def density(self, measurements: Tensor) -> float:
        """Mean share of non-zeros in x_1 .. x_K."""
        iterates = unrolled_prox_gradient(
            measurements,
            self.dictionary,
            self.weight,
            step=self.steps,
            threshold=self.thresholds,
            iterates=True,
        ).iterates
        assert iterates is not None
        return float((iterates[1:] != 0).float().mean())


def make_problem(m: int, n: int, n_layers: int, density: float, tied: bool = True) -> Problem:
    """Random dictionary, analytic weights, steps of 1, thresholds calibrated layer by layer."""
    source = make_sparse_problem(m, n, density=TRUE_DENSITY, seed=0)
    weight = analytic_weight(source.dictionary)
    if not tied:
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(n_layers, m, n, generator=generator)
        weight = weight * (1 + UNTIED_SPREAD * noise)
    measurements = source.sample(CALIBRATION_BATCH, torch.Generator().manual_seed(1)).measurements
    thresholds = _calibrated_thresholds(measurements, source.dictionary, weight, n_layers, density)
    return Problem(source, weight, torch.ones(n_layers), thresholds)


def make_dictionary_problem(m: int, n: int, n_layers: int, density: float) -> Problem:
    """ISTA with few non-zeros and one threshold, as where a dictionary is learned (PUDLE).

    ``density`` is that of the first layer, whose threshold all others share; they are sparser.
    """
    source = make_sparse_problem(m, n, density=DICTIONARY_NON_ZEROS / n, seed=0)
    dictionary = source.dictionary
    step = 0.95 / lipschitz_constant(dictionary)
    measurements = source.sample(CALIBRATION_BATCH, torch.Generator().manual_seed(1)).measurements
    threshold = (step * measurements @ dictionary).abs().flatten()[: 1 << 20].quantile(1 - density)
    return Problem(
        source, dictionary, torch.full((n_layers,), step), threshold.expand(n_layers).contiguous()
    )


def _calibrated_thresholds(
    measurements: Tensor, dictionary: Tensor, weight: Tensor, n_layers: int, density: float
) -> Tensor:
    """Thresholds (K,) that leave the wanted share of non-zeros in every layer.

    Each is the quantile of |u| over the batch, where u is what the layer shrinks, at a step of 1.
    """
    codes = measurements.new_zeros(len(measurements), dictionary.shape[1])
    thresholds = []
    for layer in range(n_layers):
        w = weight[layer] if weight.dim() == 3 else weight
        u = prox_gradient_step(codes, measurements, dictionary, w, step=1.0, threshold=0.0)
        thresholds.append(u.abs().quantile(1 - density))
        codes = soft_threshold(u, thresholds[-1])
    return torch.stack(thresholds)


class Network(nn.Module):
    """The recursion as a module: fixed matrices, learned steps and learned thresholds."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.prepared = prepare(problem.dictionary, problem.weight)
        self.steps = nn.Parameter(problem.steps.clone())
        self.thresholds = nn.Parameter(problem.thresholds.clone())

    def forward(self, b: Tensor) -> Tensor:
        """Codes (batch, n) of measurements (batch, m)."""
        return unrolled_prox_gradient(
            b, self.prepared, step=self.steps, threshold=self.thresholds
        ).codes
