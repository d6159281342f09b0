"""Times of single operators on one thread, fused and in the plain-PyTorch reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastunroll import soft_threshold, unrolled_prox_gradient, use_backend
from fastunroll.benchmarks.problems import Network, Problem, make_problem

backends = pytest.mark.parametrize("backend", ["auto", "reference"])
batches = pytest.mark.parametrize("batch", [1, 64, 1024])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(250, 500, n_layers=16, density=0.15)


@backends
@batches
def test_soft_threshold(benchmark: BenchmarkFixture, batch: int, backend: str) -> None:
    benchmark.group = f"soft_threshold, batch {batch}"
    u = torch.randn(batch, 500, generator=torch.Generator().manual_seed(0))
    threshold = torch.tensor(1.0)
    with use_backend(backend), torch.inference_mode():
        benchmark(soft_threshold, u, threshold)


@backends
@batches
def test_forward(benchmark: BenchmarkFixture, problem: Problem, batch: int, backend: str) -> None:
    benchmark.group = f"16 layers forward, batch {batch}"
    measurements = problem.sample(batch, seed=2).measurements
    with use_backend(backend), torch.inference_mode():
        benchmark(Network(problem), measurements)


@backends
@batches
def test_forward_and_backward(
    benchmark: BenchmarkFixture, problem: Problem, batch: int, backend: str
) -> None:
    benchmark.group = f"16 layers forward and backward, all parameters, batch {batch}"
    measurements, codes = problem.sample(batch, seed=2)
    learned = (problem.dictionary, problem.weight, problem.steps, problem.thresholds)
    parameters = [p.clone().requires_grad_() for p in learned]

    def step() -> None:
        a, w, steps, thresholds = parameters
        found = unrolled_prox_gradient(measurements, a, w, step=steps, threshold=thresholds).codes
        torch.autograd.grad((found - codes).square().mean(), parameters)

    with use_backend(backend):
        benchmark(step)
