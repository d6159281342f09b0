"""LPG-Net on synthetic sparse codes: training, ablation, sweeps, objective and calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastunroll.data import SparseProblem, make_sparse_problem
from fastunroll.experiments.conformal import (
    conformal_half_width,
    coverage,
    gaussian_half_width,
)
from fastunroll.experiments.methods import SOLVERS, Encoder, Method, tune
from fastunroll.experiments.recipe import Examples, Recipe, absolute_error, train_lpg_net
from fastunroll.experiments.settings import Settings
from fastunroll.losses import supervised_loss
from fastunroll.metrics import mean_absolute_error, nmse_db, support_scores
from fastunroll.nn import LPGNet
from fastunroll.prepared import PreparedDictionary, prepare
from fastunroll.solvers import fista, lasso_objective

GROUP = 8
"""Samples that share a density and an SNR where those are drawn at random."""

FULL = "full"
ABLATIONS: dict[str, dict[str, Any]] = {
    FULL: {},
    "no adaptive step": {"adaptive_step": False},
    "no monotonicity penalty": {},
    "shared threshold": {"shared_threshold": True},
    "squared error in the loss": {},
}
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Bench:
    """The synthetic problem and the classical methods tuned for it."""

    settings: Settings

    @cached_property
    def problem(self) -> SparseProblem:
        """The problem at the nominal density and SNR."""
        s = self.settings
        return make_sparse_problem(
            s.n_measurements, s.n_atoms, density=s.density, snr_db=s.snr, seed=s.seed
        )

    @cached_property
    def prepared(self) -> PreparedDictionary:
        """The dictionary, ready for repeated use."""
        return prepare(self.problem.dictionary)

    @cached_property
    def validation(self) -> Examples:
        """Validation set over the whole range of densities and SNRs."""
        return self.mixture(self.settings.n_validation, self.generator(1))

    @cached_property
    def test(self) -> Examples:
        """Test set over the whole range of densities and SNRs."""
        return self.mixture(self.settings.n_test, self.generator(2))

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Each classical method with the parameters of least MAE on the validation set."""
        return self.tuned(self.validation)

    def generator(self, stream: int) -> torch.Generator:
        """Independent random numbers for each use."""
        return torch.Generator().manual_seed(1000 * (self.settings.seed + 1) + stream)

    def mixture(self, count: int, generator: torch.Generator) -> Examples:
        """Samples whose density and SNR are drawn uniformly, anew for every `GROUP` samples."""
        s = self.settings
        draws = torch.rand(-(-count // GROUP), 2, generator=generator).tolist()
        groups = []
        for where_density, where_snr in draws:
            density, snr = (
                low + where * (high - low)
                for where, (low, high) in (
                    (where_density, s.density_range),
                    (where_snr, s.snr_range),
                )
            )
            problem = replace(self.problem, density=density, snr_db=snr)
            groups.append(problem.sample(GROUP, generator))
        return Examples(*(torch.cat(parts)[:count] for parts in zip(*groups, strict=True)))

    def tuned(self, validation: Examples) -> dict[str, Method]:
        """Tune each classical method for the MAE on a validation set."""

        def error(codes: Tensor) -> float:
            return mean_absolute_error(codes, validation.target)

        b, depth = validation.measurements, self.settings.n_layers
        return {name: tune(name, b, self.prepared, error, depth) for name in SOLVERS}

    def encoders(self, network: LPGNet, methods: dict[str, Method]) -> dict[str, Encoder]:
        """LPG-Net and the classical methods as functions from measurements to codes."""
        classical = {name: m.encoder(self.prepared) for name, m in methods.items()}
        return {"LPG-Net": network, **classical}


def train_variant(bench: Bench, variant: str, progress: bool) -> tuple[LPGNet, dict[str, Any]]:
    """Train LPG-Net or one of its ablations; the network and its scores on the test set."""
    s = bench.settings
    network = LPGNet.from_dictionary(
        bench.problem.dictionary,
        bench.validation.measurements,
        n_layers=s.n_layers,
        **ABLATIONS[variant],
    )
    recipe: Recipe = s.recipe
    if variant == "no monotonicity penalty":
        recipe = replace(recipe, beta=0.0)
    squared = variant == "squared error in the loss"
    result = train_lpg_net(
        network,
        lambda generator: bench.mixture(recipe.batch, generator),
        supervised_loss if squared else absolute_error,
        bench.validation,
        recipe,
        objective_weight=bench.methods["FISTA"].parameters[0],
        seed=s.seed,
        progress=progress,
    )
    return network, {
        "learned numbers": network.n_parameters,
        "steps": result.n_steps,
        "training s": result.seconds,
        **scores(network, bench.test),
    }


@torch.no_grad()
def scores(encode: Encoder, examples: Examples) -> dict[str, float]:
    """MAE, NMSE and support F1 of the codes."""
    codes = encode(examples.measurements)
    return {
        "MAE": mean_absolute_error(codes, examples.target),
        "NMSE dB": nmse_db(codes, examples.target),
        "F1": support_scores(codes, examples.target).f1,
    }


def comparison(bench: Bench, network: LPGNet) -> dict[str, Any]:
    """Scores of every method on the test set over the whole range."""
    encoders = bench.encoders(network, bench.methods)
    return {
        "scores": {name: scores(encode, bench.test) for name, encode in encoders.items()},
        "parameters": {name: list(m.parameters) for name, m in bench.methods.items()},
    }


def sweep(bench: Bench, network: LPGNet, field: str, values: tuple[float, ...]) -> dict[str, Any]:
    """Scores along one field of the problem, ``"density"`` or ``"snr_db"``.

    Beside the methods as tuned for the whole range stand the same methods retuned for each value.
    """
    once = bench.encoders(network, bench.methods)
    rows: dict[str, list[dict[str, float]]] = {}
    for stream, value in enumerate(values, start=10):
        change: dict[str, Any] = {field: value}
        problem = replace(bench.problem, **change)
        generator = bench.generator(stream)
        validation = Examples(*problem.sample(bench.settings.n_validation // 2, generator))
        test = Examples(*problem.sample(bench.settings.n_test, generator))
        retuned = {
            f"{n}, retuned": m.encoder(bench.prepared) for n, m in bench.tuned(validation).items()
        }
        for name, encode in {**once, **retuned}.items():
            rows.setdefault(name, []).append(scores(encode, test))
    return {
        "values": list(values),
        **{
            score: {name: [row[score] for row in found] for name, found in rows.items()}
            for score in ("MAE", "F1")
        },
    }


@torch.no_grad()
def objective(bench: Bench, network: LPGNet) -> dict[str, Any]:
    """Mean objective F(x_k) of every layer at the nominal setting, and its minimum F*.

    Lambda is that of the tuned FISTA for all methods; ADMM keeps its tuned rho.
    """
    lam = bench.methods["FISTA"].parameters[0]
    b = bench.problem.sample(bench.settings.n_test, bench.generator(3)).measurements
    curves = {}
    unrolled = network.unroll(b, objective_weight=lam).objective
    assert unrolled is not None
    curves["LPG-Net"] = unrolled
    for name, method in bench.methods.items():
        same = replace(method, parameters=(lam, *method.parameters[1:]))
        curves[name] = same.solve(b, bench.prepared).objective
    exact = fista(b, bench.prepared, lam, max_iterations=5000, tolerance=1e-5).codes
    minimum = float(lasso_objective(exact, b, bench.prepared, lam).mean())
    return {
        "lambda": lam,
        "minimum": minimum,
        "F": {name: curve.double().mean(dim=1).tolist() for name, curve in curves.items()},
    }


@torch.no_grad()
def calibration(bench: Bench, network: LPGNet) -> dict[str, Any]:
    """Nominal and empirical coverage of intervals around the non-zeros that LPG-Net finds."""
    residuals = []
    for stream in (4, 5):
        examples = bench.mixture(bench.settings.n_test, bench.generator(stream))
        codes = network(examples.measurements)
        residuals.append((codes - examples.target)[codes != 0])
    known, new = residuals
    result: dict[str, Any] = {"levels": list(LEVELS), "coverage": {}, "half width": {}}
    for name, rule in (
        ("split conformal", conformal_half_width),
        ("Gaussian residuals", gaussian_half_width),
    ):
        widths = [rule(known, level) for level in LEVELS]
        result["half width"][name] = widths
        result["coverage"][name] = [coverage(new, width) for width in widths]
    gaps = {
        name: float(np.abs(np.subtract(found, LEVELS)).max())
        for name, found in result["coverage"].items()
    }
    return {**result, "largest gap": gaps, "entries": len(new)}
