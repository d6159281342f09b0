"""How fast networks are trained: seconds to a level, and fused layers against plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fastunroll.backend import use_backend
from fastunroll.benchmarks.timing import interleaved
from fastunroll.data.benchmark import BenchmarkProblem
from fastunroll.nn import ALISTA, SupportSelection
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.training.recovery import log_error, train_recovery

BATCHES = (64, 512)
BACKENDS = ("auto", "reference")


def quick_training(problem: BenchmarkProblem, n_layers: int, steps: int) -> dict[str, Any]:
    """Train ALISTA with support selection for a few steps: its test error and the seconds."""
    network = ALISTA(problem.dictionary, n_layers, support_selection=SupportSelection())
    result = train_recovery(network, problem, budget=steps, progress=False)
    return {
        "NMSE": problem.evaluate(network).nmse_db,
        "seconds": result.seconds,
        "steps": result.n_steps,
        "threads": torch.get_num_threads(),
    }


def step_times(
    problem: BenchmarkProblem, networks: Mapping[str, LayeredNetwork], rounds: int
) -> dict[str, Any]:
    """Milliseconds of a training step of all layers and parameters, by network and batch size.

    Beside them is their ratio. Both backends run in turn, in one process: the fused layers and the
    reference, which is plain PyTorch. The networks are trained ones, so the codes are as sparse as
    they get.
    """
    found: dict[str, Any] = {}
    for name, network in networks.items():
        found[name] = {}
        for size in BATCHES:
            calls = {backend: _step(problem, network, size, backend) for backend in BACKENDS}
            timings = interleaved(calls, 1, rounds)
            fused, reference = (1e3 * timings[backend].median for backend in BACKENDS)
            found[name][str(size)] = {
                "fused": fused,
                "reference": reference,
                "ratio": reference / fused,
            }
    return found


def _step(
    problem: BenchmarkProblem, network: LayeredNetwork, size: int, backend: str
) -> Callable[[int], None]:
    batch = problem.training.sample(size, torch.Generator().manual_seed(0))

    def step(_: int) -> None:
        with use_backend(backend):
            network.zero_grad()
            torch.autograd.backward(log_error(network(batch.measurements), batch))

    return step
