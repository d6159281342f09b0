"""Training of one network on one benchmark problem, kept as a file and a part."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastunroll.data.benchmark import BenchmarkProblem
from fastunroll.data.seeds import stream_seed
from fastunroll.experiments.lista.settings import LAMBDA, ListaSettings, Training
from fastunroll.experiments.lista.tuning import nmse_on, tune
from fastunroll.experiments.store import Store
from fastunroll.io import save_model
from fastunroll.nn import HyperLISTA
from fastunroll.nn.catalogue import create
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.training.recovery import train_recovery

_MANY = 3
"""Samples of HyperLISTA's search for each test sample: a few rare ones rule the NMSE."""

_CHUNK = 1000
"""Test samples at a time, whose iterates are all kept."""


def part_name(model: str, variant: str) -> str:
    """Name of the files of a network."""
    return f"{model}-{variant}"


def model_path(output: Path, model: str, variant: str) -> Path:
    """Where a trained network is kept."""
    return output / "models" / f"{part_name(model, variant)}.safetensors"


def train_part(
    output: Path, s: ListaSettings, training: Training, variant: str, *, progress: bool
) -> dict[str, Any]:
    """Train a network and score it on the test set, unless that is done.

    An interrupted training goes on where it stopped. Several processes may work on different
    networks of one folder.

    Returns
    -------
    dict
        Scores in dB (``"NMSE"``, ``"median"``, ``"worst"``, ``"layers"``, the NMSE after 0 to K
        layers, and ``"validation"``), ``"parameters"``, ``"steps"``, ``"schedule"``, ``"seconds"``,
        ``"threads"`` and the ``"checksum"`` of the problem.
    """
    name = part_name(training.model, variant)
    path = model_path(output, training.model, variant)
    key = {
        "model": training.model,
        "variant": variant,
        "steps": training.steps,
        "schedule": training.schedule,
        "layers": s.n_layers,
        "size": [s.n_measurements, s.n_atoms, s.n_test],
        "seed": s.seed,
    }
    store = Store(output / "models", key)

    def compute() -> dict[str, Any]:
        problem = s.problem(variant)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(s.seed)
            network = create(training.model, problem.training, s.n_layers)
        trained = _fit(network, problem, training, s.seed, store.run(name), progress=progress)
        save_model(network, path)
        return {
            **score(all_codes(network), problem),
            **trained,
            "schedule": training.schedule,
            "parameters": network.n_parameters,
            "threads": torch.get_num_threads(),
            "checksum": problem.checksum,
        }

    return store.part(name, compute, [path])


def _fit(
    network: LayeredNetwork,
    problem: BenchmarkProblem,
    training: Training,
    seed: int,
    run: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Train in place, and say how well and how long."""
    if isinstance(network, HyperLISTA):
        started = time.monotonic()
        generator = torch.Generator().manual_seed(stream_seed(seed, "training"))
        many = problem.training.sample(_MANY * len(problem.test.codes), generator)
        tune(network, problem.validation, many, training.steps)
        seconds = time.monotonic() - started
        found = nmse_on(network, problem.validation)
        return {"validation": found, "steps": training.steps, "seconds": seconds}
    supervised = training.model != "step-lista"
    result = train_recovery(
        network,
        problem,
        schedule=training.schedule,
        loss="supervised" if supervised else "lasso",
        lam=LAMBDA,
        budget=training.steps,
        seed=seed,
        directory=run,
        progress=progress,
    )
    found = nmse_on(network, problem.validation)
    return {"validation": found, "steps": result.n_steps, "seconds": result.seconds}


def all_codes(network: LayeredNetwork) -> Callable[[Tensor], Tensor]:
    """Return what computes the codes (n_layers + 1, batch, n_atoms) after every layer."""

    def codes(b: Tensor) -> Tensor:
        iterates = network.unroll(b, iterates=True).iterates
        assert iterates is not None
        return iterates

    return codes


@torch.no_grad()
def score(iterates: Callable[[Tensor], Tensor], problem: BenchmarkProblem) -> dict[str, Any]:
    """Scores in dB on the test set, of the last codes and, as NMSE, of all.

    ``iterates`` maps measurements (batch, m) to codes (n_iterates, batch, n).
    """
    squares, last = torch.zeros(()), []
    for b, true in zip(*(part.split(_CHUNK) for part in problem.test), strict=True):
        found = iterates(b)
        squares = squares + (found - true).double().square().sum(dim=(1, 2))
        last.append(found[-1])
    result = problem.score(torch.cat(last))
    energy = problem.test.codes.double().square().sum()
    return {
        "NMSE": result.nmse_db,
        "median": result.median_db,
        "worst": result.worst_db,
        "layers": (10 * (squares / energy).log10()).tolist(),
    }
