"""Figs. 5 and 6: how close a large dictionary comes to the true one, method by method."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import (
    NOODL,
    PUDLE,
    alternating_minimisation,
    code_error,
    dictionary_error,
    match_atoms,
)
from fastunroll.dictionary.train import Decay, train_dictionary
from fastunroll.experiments.pudle.samples import AtomProblem
from fastunroll.experiments.pudle.settings import RecoverySettings
from fastunroll.io import save_tensors
from fastunroll.solvers import fista

PLAIN, DECAY, HARD = "plain", "decay", "hard"
NOODL_METHOD, ALTERNATING = "NOODL", "alternating"
METHODS = (PLAIN, DECAY, HARD, NOODL_METHOD, ALTERNATING)

_POINTS = 50
"""Points of a curve."""

_N_FRESH = 200
"""Fresh samples whose codes are compared with the true ones."""


class Learned(NamedTuple):
    """A dictionary, how it encodes samples, and how its error fell."""

    dictionary: Tensor
    encode: Callable[[Tensor], Tensor]
    samples: list[int]
    """Samples seen so far, for each point of the curve."""
    errors: list[float]
    """Relative error of D, atoms in the order they have."""
    seconds: float


@torch.no_grad()
def recover(
    s: RecoverySettings, method: str, sparsity: int, seed: int, path: Path, *, progress: bool
) -> dict[str, Any]:
    """Learn a dictionary with one of `METHODS`, and save it with the codes of a sample.

    Returns
    -------
    dict
        The curve as ``"samples"`` and ``"errors"``; its end as ``"error"``, and after matching as
        ``"matched error"``; ``"code error"`` of fresh samples, ``"seconds"``,
        ``"processor seconds"`` and ``"threads"``.
    """
    problem = AtomProblem.make(s.n_measurements, s.n_atoms, sparsity, seed)
    start, processor = problem.start(s.noise, seed), time.process_time()
    if method == NOODL_METHOD:
        learned = _noodl(s, problem, start, seed)
    elif method == ALTERNATING:
        learned = _alternating(s, problem, start, seed)
    else:
        learned = _pudle(s, method, problem, start, seed, progress=progress)
    processor = time.process_time() - processor
    fresh = problem.sample(_N_FRESH, torch.Generator().manual_seed(stream_seed(seed, "test")))
    codes = learned.encode(fresh.measurements)
    match = match_atoms(learned.dictionary, problem.dictionary)
    shown = {
        "dictionary": learned.dictionary,
        "codes": match.apply(codes)[0],
        "true codes": fresh.codes[0],
    }
    save_tensors(shown, {"method": method, "sparsity": sparsity}, path)
    return {
        "samples": learned.samples,
        "errors": learned.errors,
        "error": learned.errors[-1],
        "matched error": dictionary_error(learned.dictionary, problem.dictionary),
        "code error": code_error(codes, fresh.codes, match),
        "seconds": learned.seconds,
        "processor seconds": processor,
        "threads": torch.get_num_threads(),
    }


def _pudle(
    s: RecoverySettings,
    method: str,
    problem: AtomProblem,
    start: Tensor,
    seed: int,
    *,
    progress: bool,
) -> Learned:
    hard = method == HARD
    model = PUDLE(
        start,
        s.n_layers,
        lam=s.threshold if hard else s.lam,
        step=s.step,
        prox="hard" if hard else "soft",
        constraint="normalised",
    )
    with torch.enable_grad():
        result = train_dictionary(
            model,
            lambda generator: problem.sample(s.batch_size, generator).measurements,
            s.n_steps,
            learning_rate=s.learning_rate,
            epsilon=s.epsilon,
            layer_decay=Decay(1.0, s.decay, s.n_steps // 10) if method == DECAY else None,
            validate=lambda model: dictionary_error(
                model.dictionary, problem.dictionary, match=False
            ),
            validation_name="error of D",
            validate_every=s.n_steps // _POINTS,
            keep_last=True,
            seed=stream_seed(seed, "training"),
            progress=progress,
        )
    return Learned(
        model.dictionary.detach(),
        model.eval(),
        [s.batch_size * record.step for record in result.records],
        [r.validation for r in result.records if r.validation is not None],
        result.seconds,
    )


def _noodl(s: RecoverySettings, problem: AtomProblem, start: Tensor, seed: int) -> Learned:
    generator = torch.Generator().manual_seed(stream_seed(seed, "training"))
    learner = NOODL(
        start,
        dictionary_step=s.noodl_step,
        n_layers=s.n_layers,
        coefficient_step=s.step,
        threshold=s.threshold,
    )
    steps, errors = [0], [dictionary_error(start, problem.dictionary, match=False)]
    started = time.monotonic()
    for step in range(1, s.n_steps + 1):
        learner.update(problem.sample(s.batch_size, generator).measurements)
        if step % (s.n_steps // _POINTS) == 0:
            steps.append(step)
            errors.append(dictionary_error(learner.dictionary, problem.dictionary, match=False))
    seconds = time.monotonic() - started
    samples = [s.batch_size * step for step in steps]
    return Learned(learner.dictionary, learner.encode, samples, errors, seconds)


def _alternating(s: RecoverySettings, problem: AtomProblem, start: Tensor, seed: int) -> Learned:
    generator = torch.Generator().manual_seed(stream_seed(seed, "training"))
    x = problem.sample(s.alternating_samples, generator).measurements
    dictionary, errors = start, [dictionary_error(start, problem.dictionary, match=False)]
    started = time.monotonic()
    for _ in range(s.alternating_iterations):
        dictionary = alternating_minimisation(x, dictionary, s.lam, n_iterations=1).dictionary
        errors.append(dictionary_error(dictionary, problem.dictionary, match=False))
    seconds = time.monotonic() - started
    samples = [s.alternating_samples * n for n in range(len(errors))]
    return Learned(
        dictionary, lambda x: fista(x, dictionary, s.lam).codes, samples, errors, seconds
    )
