"""Figs. 2 to 4: codes and gradients layer by layer, and where the three gradients lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import PUDLE, dictionary_error
from fastunroll.dictionary.pudle import GRADIENTS
from fastunroll.dictionary.train import train_dictionary
from fastunroll.experiments.pudle.samples import AtomProblem
from fastunroll.experiments.pudle.settings import LocalSettings

TARGETS = {
    "lasso": "g^, the gradient of the lasso at its solution for D",
    "biased": "g*, the gradient at the solution of the lasso for the true D",
    "true": "g~, the gradient at the true codes",
}
"""Gradients of 1/2 ||x - D z||^2 in D that the three of PUDLE are compared with."""

_FLOOR = 1e-9
"""Errors below this share of the first one are rounding."""


def local_gradients(s: LocalSettings, seed: int) -> dict[str, Any]:
    """Errors of codes and gradients after T layers, in float64 and near the true dictionary.

    Returns
    -------
    dict
        ``"layers"`` T; ``"codes"``, the mean of ||z_T - z^||; and ``"gradients"``, by target and
        gradient the Frobenius norm of the difference.
    """
    problem, x, true = _samples(s, s.n_samples, seed)
    dictionary = problem.start(s.near, seed).double()

    def encode(d: Tensor, n_layers: int) -> Tensor:
        with torch.no_grad():
            model = PUDLE(d, n_layers, lam=s.lam, step=s.step, constraint="normalised")
            return model.unroll(x).codes

    limit = encode(dictionary, s.limit_layers)
    biased = encode(problem.dictionary.double(), s.limit_layers)
    goals = {
        name: (z @ dictionary.mT - x).mT @ z / len(x)
        for name, z in zip(TARGETS, (limit, biased, true), strict=True)
    }
    codes = []
    errors: dict[str, dict[str, list[float]]] = {
        target: {gradient: [] for gradient in GRADIENTS} for target in TARGETS
    }
    for n_layers in s.layers:
        codes.append(float((encode(dictionary, n_layers) - limit).norm(dim=1).mean()))
        for gradient in GRADIENTS:
            model = PUDLE(
                dictionary,
                n_layers,
                lam=s.lam,
                step=s.step,
                gradient=gradient,
                constraint="normalised",
            )
            (found,) = torch.autograd.grad(model.loss(x), model.dictionary)
            for target, goal in goals.items():
                errors[target][gradient].append(float((found - goal).norm()))
    return {"layers": list(s.layers), "codes": codes, "gradients": errors}


def line(layers: list[int], errors: list[float]) -> tuple[float, float]:
    """Slope, and value at layer 0, of a least-squares line through ln(error) before rounding."""
    found = np.array(errors)
    small = np.flatnonzero(found < _FLOOR * found[0])
    end = int(small[0]) if len(small) else len(found)
    slope, start = np.polyfit(layers[:end], np.log(found[:end]), 1)
    return float(slope), float(start)


def train_local(
    s: LocalSettings, gradient: str, n_layers: int, seed: int, directory: Path, *, progress: bool
) -> dict[str, Any]:
    """Learn from all samples at once, far from the true dictionary; the curve of ||D - D~||_F."""
    problem, x, _ = _samples(s, s.n_training_samples, seed)
    x = x.float()
    model = PUDLE(
        problem.start(s.far, seed),
        n_layers,
        lam=s.lam,
        step=s.step,
        gradient=gradient,
        constraint="normalised",
    )
    result = train_dictionary(
        model,
        lambda generator: x,
        s.n_epochs,
        learning_rate=s.learning_rate,
        validate=lambda model: (
            s.n_atoms**0.5 * dictionary_error(model.dictionary, problem.dictionary, match=False)
        ),
        validation_name="||D - D~||",
        validate_every=max(1, s.n_epochs // 100),
        keep_last=True,
        seed=seed,
        directory=directory,
        resume=True,
        progress=progress,
    )
    errors = [r.validation for r in result.records if r.validation is not None]
    return {
        "epochs": [record.step for record in result.records],
        "errors": errors,
        "error": errors[-1],
        "seconds": result.seconds,
        "threads": torch.get_num_threads(),
    }


def _samples(s: LocalSettings, count: int, seed: int) -> tuple[AtomProblem, Tensor, Tensor]:
    """The problem, samples and their codes, in float64."""
    problem = AtomProblem.make(s.n_measurements, s.n_atoms, s.sparsity, seed)
    generator = torch.Generator().manual_seed(stream_seed(seed, "training"))
    batch = problem.sample(count, generator)
    return problem, batch.codes.double() @ problem.dictionary.double().mT, batch.codes.double()
