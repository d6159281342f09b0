"""Sparse recovery against other methods: the time per sample beside the error reached.

The network is the recursion with analytic weights, thresholds c r^k and support selection, its
three numbers tuned on validation samples; nothing is trained. Every rival runs at the fastest of
its settings whose error is not above the network's, or else at its most accurate one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll import runtime
from fastunroll._optional import import_optional
from fastunroll.analysis import analytic_weight
from fastunroll.benchmarks.timing import Timing, interleaved, threads
from fastunroll.data import SparseBatch, make_sparse_problem
from fastunroll.metrics import nmse_db
from fastunroll.program import Program

SNR_DB, DENSITY, N_LAYERS = 40.0, 0.1, 16
N_SAMPLES = 64
TOLERANCE_DB = 0.5
"""Errors that differ by less count as equal."""

FIRST = (0.1, 0.15, 0.2, 0.3, 0.4)
RATIOS = (0.7, 0.75, 0.8, 0.85, 0.9)
PERCENT = ((0.8, 10.0), (1.2, 13.0), (1.6, 14.0))
"""Support selection: percent more in each layer, and at most."""

LAMBDAS = tuple(np.geomspace(1e-3, 1e-1, 7).tolist())
RESIDUALS = (0.25, 0.5, 1.0, 2.0)
"""Where OMP stops: share of the energy of the noise."""

Array = NDArray[np.float32]
Encoder = Callable[[Array], Array]


@dataclass(frozen=True)
class Row:
    """One method."""

    method: str
    setting: str
    nmse_db: float
    timing: Timing
    """Seconds per batch of `N_SAMPLES` samples."""
    as_good: bool
    """Whether its error is that of the network or smaller."""

    @property
    def microseconds(self) -> float:
        """Median time of a sample."""
        return 1e6 * self.timing.median / N_SAMPLES


def compare(rounds: int, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Compare all methods that are installed, on one thread; then say which are not, and why."""
    m, n = (25, 50) if quick else (250, 500)
    problem = make_sparse_problem(m, n, density=DENSITY, snr_db=SNR_DB, seed=0)
    test, validation = (
        problem.sample(N_SAMPLES, torch.Generator().manual_seed(seed)) for seed in (1, 2)
    )
    a = problem.dictionary
    energy = float((validation.measurements - validation.codes @ a.mT).square().sum(1).mean())
    chosen: dict[str, tuple[str, Encoder]] = {}
    skipped = []
    with threads(1), warnings.catch_warnings():
        # Settings that do not converge are among those to choose from.
        warnings.simplefilter("ignore")
        chosen["fastunroll.runtime"] = _tuned_network(a, validation)
        bound = _error(chosen["fastunroll.runtime"][1], validation) + TOLERANCE_DB
        matrix = np.asfortranarray(a.numpy())
        for make in (_scikit_lasso, _scikit_omp, _spams_lasso, _spams_omp):
            try:
                name, encoders = make(matrix, energy)
            except ImportError as error:
                skipped.append(str(error))
                continue
            setting = _choose(encoders, validation, bound)
            chosen[name] = (setting, encoders[setting])
        b = test.measurements.numpy()
        calls = {name: _call(encode, b) for name, (_, encode) in chosen.items()}
        timings = interleaved(calls, 1, rounds)
        errors = {name: _error(encode, test) for name, (_, encode) in chosen.items()}
    ours = errors["fastunroll.runtime"]
    return [
        Row(name, setting, errors[name], timings[name], errors[name] <= ours + TOLERANCE_DB)
        for name, (setting, _) in chosen.items()
    ], list(dict.fromkeys(skipped))


def _call(encode: Encoder, b: Array) -> Callable[[int], object]:
    return lambda _: encode(b)


def _error(encode: Encoder, batch: SparseBatch) -> float:
    codes = torch.from_numpy(np.ascontiguousarray(encode(batch.measurements.numpy())))
    return nmse_db(codes.to(batch.codes.dtype), batch.codes)


def _tuned_network(a: Tensor, validation: SparseBatch) -> tuple[str, Encoder]:
    """The network with the smallest error on the validation samples."""
    weight = analytic_weight(a).numpy()
    layers = np.arange(N_LAYERS)

    def network(first: float, ratio: float, percent: tuple[float, float]) -> Encoder:
        per_layer, most = percent
        shares = np.minimum(per_layer * (layers + 1), most) / 100
        program: Program[Any] = Program(
            dictionary=a.numpy(),
            weight=weight,
            step=np.ones(N_LAYERS, np.float32),
            threshold=(first * ratio**layers).astype(np.float32),
            bypass=tuple(int(count) for count in np.rint(shares * a.shape[1])),
        )
        return runtime.Engine(program)

    settings = list(product(FIRST, RATIOS, PERCENT))
    best = min(settings, key=lambda s: _error(network(*s), validation))
    first, ratio, (percent, most) = best
    text = (
        f"K={N_LAYERS}, thresholds {first:g} x {ratio:g}^k, support {percent:g} (k+1) <= {most:g} %"
    )
    return text, network(*best)


def _choose(encoders: Mapping[str, Encoder], validation: SparseBatch, bound: float) -> str:
    """The fastest setting with an error within the bound, else that with the smallest error."""
    errors = {name: _error(encode, validation) for name, encode in encoders.items()}
    good = {name: encoders[name] for name, error in errors.items() if error <= bound}
    if not good:
        return min(errors, key=errors.__getitem__)
    b = validation.measurements.numpy()
    timings = interleaved({name: _call(encode, b) for name, encode in good.items()}, 1, 2)
    return min(timings, key=lambda name: timings[name].median)


def _scikit_lasso(a: Array, energy: float) -> tuple[str, dict[str, Encoder]]:
    encode = import_optional("sklearn.decomposition", "bench").sparse_encode

    def lasso(lam: float) -> Encoder:
        return lambda b: encode(b, a.T, algorithm="lasso_cd", alpha=lam)

    return "scikit-learn lasso_cd", {f"lambda {lam:.2g}": lasso(lam) for lam in LAMBDAS}


def _scikit_omp(a: Array, energy: float) -> tuple[str, dict[str, Encoder]]:
    pursue = import_optional("sklearn.linear_model", "bench").orthogonal_mp_gram
    gram = a.T @ a

    def omp(share: float) -> Encoder:
        def run(b: Array) -> Array:
            energies = np.square(b).sum(axis=1)
            codes: Array = pursue(
                gram, (b @ a).T, tol=share * energy, norms_squared=energies, copy_Xy=False
            ).T
            return codes

        return run

    return "scikit-learn OMP", {f"residual {s:g} of the noise": omp(s) for s in RESIDUALS}


def _spams_lasso(a: Array, energy: float) -> tuple[str, dict[str, Encoder]]:
    spams = import_optional("spams", "bench")

    def lasso(lam: float) -> Encoder:
        return lambda b: (
            spams.lasso(np.asfortranarray(b.T), D=a, lambda1=lam, mode=2, numThreads=1).toarray().T
        )

    return "SPAMS lasso", {f"lambda {lam:.2g}": lasso(lam) for lam in LAMBDAS}


def _spams_omp(a: Array, energy: float) -> tuple[str, dict[str, Encoder]]:
    spams = import_optional("spams", "bench")
    most = a.shape[0] // 2

    def omp(share: float) -> Encoder:
        return lambda b: (
            spams.omp(np.asfortranarray(b.T), D=a, L=most, eps=share * energy, numThreads=1)
            .toarray()
            .T
        )

    return "SPAMS OMP", {f"residual {s:g} of the noise": omp(s) for s in RESIDUALS}
