"""Robust ALISTA, trained on perturbed dictionaries, against ALISTA."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastunroll.data.benchmark import BenchmarkProblem
from fastunroll.data.seeds import stream_seed
from fastunroll.data.synthetic import SparseBatch, SparseProblem
from fastunroll.experiments.lista.mismatch import perturb
from fastunroll.experiments.lista.settings import RobustSettings
from fastunroll.metrics import nmse_db
from fastunroll.nn import ALISTA, RobustALISTA
from fastunroll.nn.robust_alista import WeightEncoder
from fastunroll.training import Stage, Trainer
from fastunroll.training.recovery import log_error

_BATCH = 64
_N_HELD_OUT = 4
"""Perturbed dictionaries to validate on."""


class Perturbed(NamedTuple):
    """A perturbed dictionary, and samples measured with it."""

    dictionary: Tensor
    batch: SparseBatch


def train_robust(
    problem: BenchmarkProblem,
    alista: ALISTA,
    s: RobustSettings,
    seed: int,
    directory: Path,
    *,
    progress: bool,
) -> RobustALISTA:
    """Train the encoder alone, and then all, on dictionaries with perturbations of all sizes.

    Every step has a dictionary of its own. The steps and thresholds begin with those of ``alista``,
    which is trained for the nominal dictionary.
    """
    nominal = problem.training
    network = RobustALISTA(
        problem.dictionary, alista.n_layers, support_selection=alista.support_selection
    )
    _take_numbers(network, alista)

    def draw(generator: torch.Generator) -> Tensor:
        size = s.perturbation * float(torch.rand((), generator=generator))
        return perturb(nominal.dictionary, size, generator)

    def sample(generator: torch.Generator) -> Perturbed:
        return _measure(nominal, draw(generator), _BATCH, generator)

    validation = torch.Generator().manual_seed(stream_seed(seed, "validation"))
    held_out = [sample(validation) for _ in range(_N_HELD_OUT)]
    dictionaries = torch.stack([one.dictionary for one in held_out])
    data = f"{problem.checksum}, perturbations to {s.perturbation}"
    common: dict[str, Any] = {"data": data, "validate_every": 50, "progress": progress}
    Trainer[WeightEncoder, Tensor](
        network.encoder,
        draw,
        lambda encoder, dictionary: encoder.coherence_loss(dictionary),
        [_stage("encoder", s.encoder_steps, 0.03)],
        validate=lambda encoder: float(encoder.coherence_loss(dictionaries)),
        validation_name="coherence",
        seed=stream_seed(seed, "training"),
        directory=directory / "encoder",
        **common,
    ).fit(resume=True)
    Trainer[RobustALISTA, Perturbed](
        network,
        sample,
        lambda net, one: log_error(net(one.batch.measurements, one.dictionary), one.batch),
        [_stage("all", s.steps, 0.01)],
        validate=lambda net: (
            sum(
                nmse_db(net(one.batch.measurements, one.dictionary), one.batch.codes)
                for one in held_out
            )
            / len(held_out)
        ),
        validation_name="NMSE (dB)",
        seed=stream_seed(seed, "training"),
        directory=directory / "all",
        **common,
    ).fit(resume=True)
    return network


@torch.no_grad()
def compare_robust(
    problem: BenchmarkProblem, robust: RobustALISTA, alista: ALISTA, s: RobustSettings, seed: int
) -> dict[str, Any]:
    """NMSE in dB, mean over the test dictionaries, against the size of the perturbation.

    ALISTA keeps its trained numbers; it is run with nominal A and W, with the perturbed A and
    nominal W, and with the W of the perturbed A.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "test"))
    found: dict[str, list[float]] = {}
    for size in s.test_perturbations:
        sums: dict[str, float] = {}
        for _ in range(s.n_test_dictionaries):
            dictionary = perturb(problem.dictionary, size, generator)
            one = _measure(problem.training, dictionary, s.n_test, generator)
            b, codes = one.batch
            estimates = {
                "ALISTA, does not know the new A": alista(b),
                "ALISTA, knows A, old W": _with(alista, dictionary, alista.weight)(b),
                "ALISTA, W computed anew": _with(alista, dictionary, None)(b),
                "Robust ALISTA": robust(b, dictionary),
            }
            for name, estimate in estimates.items():
                sums[name] = sums.get(name, 0.0) + nmse_db(estimate, codes)
        for name, total in sums.items():
            found.setdefault(name, []).append(total / s.n_test_dictionaries)
    return {"values": list(s.test_perturbations), **found}


def _stage(name: str, steps: int, rate: float) -> Stage:
    return Stage(name=name, max_steps=steps, learning_rate=rate, relative=True, decay=0.05)


def _measure(
    nominal: SparseProblem, dictionary: Tensor, count: int, generator: torch.Generator
) -> Perturbed:
    problem = SparseProblem(dictionary, nominal.density, nominal.snr_db, nominal.amplitude_std)
    return Perturbed(dictionary, problem.sample(count, generator))


def _with(alista: ALISTA, dictionary: Tensor, weight: Tensor | None) -> ALISTA:
    """Return ALISTA with the same numbers for another dictionary; weights analytic by default."""
    network = ALISTA(
        dictionary,
        alista.n_layers,
        weight=weight,
        support_selection=alista.support_selection,
    )
    _take_numbers(network, alista)
    return network


@torch.no_grad()
def _take_numbers(network: ALISTA | RobustALISTA, source: ALISTA) -> None:
    """Copy the steps and thresholds of a trained network."""
    for name in ("steps", "thresholds"):
        pairs = zip(getattr(network, name), getattr(source, name), strict=True)
        for target, value in pairs:
            target.copy_(value)
