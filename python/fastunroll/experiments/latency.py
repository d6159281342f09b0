"""Time that one sample takes, for every method, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import fastunroll
from fastunroll._optional import import_optional
from fastunroll.analysis.spectral import lipschitz_constant
from fastunroll.experiments.synthetic import Bench
from fastunroll.functional import unrolled_prox_gradient
from fastunroll.nn import LPGNet

_WARM_UP = 10


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside a ``with`` block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def latency(bench: Bench, network: LPGNet) -> dict[str, Any]:
    """Single-sample times in microseconds, on one thread.

    The methods take turns on the same samples, so that a change in the machine's load meets all of
    them. ISTA, FISTA and ADMM are calls of the solvers, which check their arguments and compute
    Lipschitz constant or factor, and the duality gap, each time; "ISTA, layers only" is without all
    that. Coordinate descent runs to scikit-learn's own tolerance.
    """
    samples = bench.test.measurements
    lam = bench.methods["FISTA"].parameters[0]
    m = bench.settings.n_measurements
    lasso = import_optional("sklearn.linear_model").Lasso(alpha=lam / m, fit_intercept=False)
    matrix = bench.problem.dictionary.double().numpy()

    def plain(measurements: Tensor) -> None:
        with fastunroll.use_backend("reference"):
            network(measurements)

    def descend(measurements: Tensor) -> None:
        lasso.fit(matrix, measurements[0].double().numpy())

    step = 1.0 / lipschitz_constant(bench.problem.dictionary)
    ista_lam = bench.methods["ISTA"].parameters[0]

    def bare_ista(measurements: Tensor) -> None:
        unrolled_prox_gradient(
            measurements,
            bench.prepared,
            step=step,
            threshold=ista_lam * step,
            n_layers=bench.settings.n_layers,
        )

    calls: dict[str, Callable[[Tensor], object]] = {
        "LPG-Net": network,
        "LPG-Net, plain PyTorch": plain,
        "ISTA, layers only": bare_ista,
        **{name: method.encoder(bench.prepared) for name, method in bench.methods.items()},
        "coordinate descent (scikit-learn)": descend,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with one_thread():
        for turn in range(-_WARM_UP, bench.settings.n_latency):
            index = turn % len(samples)
            sample = samples[index : index + 1]
            for name, call in calls.items():
                start = time.perf_counter()
                call(sample)
                if turn >= 0:
                    times[name].append(1e6 * (time.perf_counter() - start))
    return {"microseconds": times}
