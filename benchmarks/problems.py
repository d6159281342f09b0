"""Recovery problems of a wanted density, and the recursion as PyTorch users write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastunroll import prepare, prox_gradient_step, soft_threshold, unrolled_prox_gradient
from fastunroll.data import SparseBatch, SparseProblem, make_sparse_problem

Shrink = Callable[[Tensor, Any], Tensor]
"""A shrinkage (u, threshold) -> S_threshold(u)."""

TRUE_DENSITY = 0.1
CALIBRATION_BATCH = 256


@dataclass(frozen=True, eq=False)
class Problem:
    """A K-layer network whose iterates all have the wanted density."""

    source: SparseProblem
    weight: Tensor
    """Analysis weights W: (m, n)."""
    steps: Tensor
    """(K,), all 1."""
    thresholds: Tensor
    """(K,), calibrated."""

    @property
    def dictionary(self) -> Tensor:
        """A: (m, n)."""
        return self.source.dictionary

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A, W, steps and thresholds."""
        return self.dictionary, self.weight, self.steps, self.thresholds

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


def make_problem(m: int, n: int, n_layers: int, density: float) -> Problem:
    """Random dictionary, analytic weights, steps of 1, thresholds calibrated layer by layer."""
    source = make_sparse_problem(m, n, density=TRUE_DENSITY, seed=0)
    weight = analytic_weight(source.dictionary)
    measurements = source.sample(CALIBRATION_BATCH, torch.Generator().manual_seed(1)).measurements
    thresholds = calibrated_thresholds(measurements, source.dictionary, weight, n_layers, density)
    return Problem(source, weight, torch.ones(n_layers), thresholds)


def analytic_weight(dictionary: Tensor) -> Tensor:
    """w_j = (A A^T)^-1 a_j, scaled to w_j . a_j = 1: (m, n)."""
    a = dictionary.double()
    weight: Tensor = torch.linalg.solve(a @ a.mT, a)
    weight = weight / (weight * a).sum(dim=0)
    return weight.to(dictionary.dtype)


def calibrated_thresholds(
    measurements: Tensor, dictionary: Tensor, weight: Tensor, n_layers: int, density: float
) -> Tensor:
    """Thresholds (K,) that leave the wanted share of non-zeros in every layer.

    Each is the quantile of |u| over the batch, where u is what the layer shrinks, at a step of 1.
    """
    codes = measurements.new_zeros(len(measurements), dictionary.shape[1])
    thresholds = []
    for _ in range(n_layers):
        u = prox_gradient_step(codes, measurements, dictionary, weight, step=1.0, threshold=0.0)
        thresholds.append(u.abs().quantile(1 - density))
        codes = soft_threshold(u, thresholds[-1])
    return torch.stack(thresholds)


class Network(nn.Module):
    """The recursion as a module: fixed matrices, learned steps and learned thresholds."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.prepared = prepare(problem.dictionary, problem.weight)
        self.steps = nn.Parameter(problem.steps)
        self.thresholds = nn.Parameter(problem.thresholds)

    def forward(self, b: Tensor) -> Tensor:
        return unrolled_prox_gradient(
            b, self.prepared, step=self.steps, threshold=self.thresholds
        ).codes


def fused(problem: Problem) -> Callable[[Tensor], Tensor]:
    """The functional form with a prepared dictionary."""
    prepared = prepare(problem.dictionary, problem.weight)

    def run(b: Tensor) -> Tensor:
        return unrolled_prox_gradient(
            b, prepared, step=problem.steps, threshold=problem.thresholds
        ).codes

    return run


def shrink_by_clamp(u: Tensor, threshold: Tensor) -> Tensor:
    return u - u.clamp(-threshold, threshold)


def shrink_by_sign(u: Tensor, threshold: Tensor) -> Tensor:
    return u.sign() * torch.relu(u.abs() - threshold)


SHRINKS: dict[str, Shrink] = {"clamp": shrink_by_clamp, "sign": shrink_by_sign}
"""Shrinkages for thresholds that are tensors, which ``softshrink`` does not take."""


def eager(
    b: Tensor,
    dictionary: Tensor,
    weight: Tensor,
    steps: Iterable[Any],
    thresholds: Iterable[Any],
    shrink: Shrink,
) -> Tensor:
    """The formula in plain PyTorch; the first layer, which starts from 0, takes one product."""
    x: Tensor | None = None
    for step, threshold in zip(steps, thresholds, strict=True):
        u = step * (b @ weight) if x is None else x - step * ((x @ dictionary.mT - b) @ weight)
        x = shrink(u, threshold)
    assert x is not None
    return x


def eager_gram(
    b: Tensor,
    gram: Tensor,
    weight: Tensor,
    steps: Iterable[Any],
    thresholds: Iterable[Any],
    shrink: Shrink,
) -> Tensor:
    """The same in Gram form, G = A^T W: half the calls of `eager`."""
    linear = b @ weight
    x: Tensor | None = None
    for step, threshold in zip(steps, thresholds, strict=True):
        u = step * linear if x is None else x - step * torch.addmm(linear, x, gram, beta=-1)
        x = shrink(u, threshold)
    assert x is not None
    return x
