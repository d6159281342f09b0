"""What is measured: trainings, kernels, Hessians and descents of the three networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from fastunroll.analysis.descent import DescentPath, gradient_descent
from fastunroll.analysis.hessian import hessian_norm, output_hessian_norm
from fastunroll.analysis.tangent_kernel import (
    learned_parameters,
    smallest_eigenvalue,
    tangent_kernel,
)
from fastunroll.data import SparseBatch
from fastunroll.experiments.guarantees.networks import (
    NETWORKS,
    Readout,
    Task,
    kernel_bound,
    make_network,
    most_curved_outputs,
)
from fastunroll.experiments.guarantees.settings import GuaranteeSettings

_TEST_SEED = 10_000

EVERY = 10
"""Steps between two points of a curve that is kept."""


def relative_loss(network: Readout, batch: SparseBatch) -> Tensor:
    """Squared error relative to that of the estimate 0."""
    error: Tensor = (network(batch.measurements) - batch.codes).square().sum()
    return error / batch.codes.square().sum()


def train(network: Readout, batch: SparseBatch, n_steps: int, learning_rate: float) -> float:
    """Full-batch Adam, its learning rate falling to 0 along a cosine; the last training loss."""
    optimiser = Adam([p for p in network.parameters() if p.requires_grad], learning_rate)
    schedule = CosineAnnealingLR(optimiser, n_steps)
    for _ in range(n_steps):
        optimiser.zero_grad()
        relative_loss(network, batch).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return float(relative_loss(network, batch))


def tune(s: GuaranteeSettings, width: int) -> dict[str, float]:
    """Learning rate of least training loss of each network, on samples of a seed of its own."""
    task = Task.make(width, density=s.density, seed=s.seed)
    batch = task.sample(s.n_tuning, s.seed + _TEST_SEED + 1)
    best = {}
    for name in NETWORKS:
        losses = {
            rate: train(
                make_network(name, task.problem.dictionary, s.n_layers, s.seed + _TEST_SEED),
                *(batch, s.n_steps, rate),
            )
            for rate in s.learning_rates
        }
        best[name] = min(losses, key=lambda rate: losses[rate])
    return best


def fit(
    s: GuaranteeSettings, width: int, n_samples: int, rates: dict[str, float]
) -> dict[str, dict[str, list[float]]]:
    """Training and test loss of each network after the budget, one entry per seed."""
    task = Task.make(width, density=s.density, seed=s.seed)
    test = task.sample(s.n_test, s.seed + _TEST_SEED)
    found: dict[str, dict[str, list[float]]] = {}
    for name in NETWORKS:
        row = found.setdefault(name, {"training": [], "test": []})
        for seed in range(s.seed, s.seed + s.n_seeds):
            network = make_network(name, task.problem.dictionary, s.n_layers, seed)
            batch = task.sample(n_samples, seed)
            row["training"].append(train(network, batch, s.n_steps, rates[name]))
            with torch.no_grad():
                row["test"].append(float(relative_loss(network, test)))
    return found


def kernels(s: GuaranteeSettings, n_samples: int) -> dict[str, dict[str, list[float]]]:
    """lambda_min(K(w_0)), its two upper bounds and the mean diagonal, one entry per seed."""
    task = Task.make(s.widths[-1], density=s.density, seed=s.seed, dtype=torch.float64)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(s.seed, s.seed + s.n_kernel_seeds):
        b = task.sample(n_samples, seed).measurements
        for name in NETWORKS:
            network = make_network(name, task.problem.dictionary, s.n_layers, seed)
            kernel = tangent_kernel(network, b)
            values = {
                "smallest": smallest_eigenvalue(kernel),
                "least diagonal": float(kernel.diagonal().min()),
                "norm bound": kernel_bound(network, b),
                "mean diagonal": float(kernel.diagonal().mean()),
            }
            for key, value in values.items():
                found.setdefault(name, {}).setdefault(key, []).append(value)
    return found


def hessians(s: GuaranteeSettings, width: int) -> dict[str, list[float]]:
    """Largest Hessian norm over the most curved outputs at a random input, one entry per seed."""
    m = s.hessian_measurements
    task = Task.make(width, density=s.density, seed=s.seed, n_measurements=m)
    found: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for seed in range(s.seed, s.seed + s.n_hessian_seeds):
        generator = torch.Generator().manual_seed(seed)
        sample = torch.randn(m, generator=generator)
        for name in NETWORKS:
            network = make_network(name, task.problem.dictionary, s.n_layers, seed)
            outputs = most_curved_outputs(network, sample, s.n_outputs)
            norms = [output_hessian_norm(network, sample, output) for output in outputs]
            found[name].append(max(norms))
    return found


def descents(s: GuaranteeSettings, name: str) -> dict[str, Any]:
    """Gradient descent on a few samples: curves of loss, PL and Lipschitz ratio for each seed."""
    task = Task.make(s.widths[-1], density=s.density, seed=s.seed, dtype=torch.float64)
    found: dict[str, Any] = {}
    for seed in range(s.seed, s.seed + s.n_descent_seeds):
        batch = task.sample(s.descent_samples, seed)
        network = make_network(name, task.problem.dictionary, s.n_layers, seed)
        kernel = tangent_kernel(network, batch.measurements)
        rate = s.step_factor / _curvature(network, batch)
        while (path := _descend(network, batch, rate, s.descent_steps)) is None:
            rate /= 2
        row = {
            "learning rate": rate,
            "smallest eigenvalue": smallest_eigenvalue(kernel),
            "loss": path.loss[::EVERY].tolist(),
            "PL ratio": path.pl_ratio[::EVERY].tolist(),
            "Lipschitz ratio": path.lipschitz_ratio[::EVERY].tolist(),
        }
        for key, value in row.items():
            found.setdefault(key, []).append(value)
    return found


def _curvature(network: Readout, batch: SparseBatch) -> float:
    """Spectral norm of the Hessian of 1/2 sum ||f(y) - x||^2."""

    def loss(parameters: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(network, dict(parameters), (batch.measurements,))
        return 0.5 * (found - batch.codes).square().sum()

    return hessian_norm(loss, learned_parameters(network))


def _descend(network: Readout, batch: SparseBatch, rate: float, n_steps: int) -> DescentPath | None:
    """Gradient descent, or None where the loss rises in a step."""
    try:
        path = gradient_descent(network, *batch, learning_rate=rate, n_steps=n_steps)
    except ValueError:  # no finite loss
        return None
    return path if bool((path.loss.diff() <= 1e-9 * path.loss[0]).all()) else None
