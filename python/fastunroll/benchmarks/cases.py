"""The jobs that are timed, and the measurement of one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastunroll._build import build_info
from fastunroll.benchmarks.candidates import Candidates, inference, training
from fastunroll.benchmarks.problems import make_dictionary_problem, make_problem
from fastunroll.benchmarks.timing import Timing, bytes_kept, interleaved, peak_memory, threads

TURN_SAMPLES = 64
"""Samples that a turn runs through at least, so that a turn of single samples is long enough."""

LARGEST_DIFFERENCE = {"inference": 1e-3, "training": 1e-2}
"""Relative l2 distance between the results of two candidates, float32.

Gradients may differ more: an entry that equals its threshold up to rounding is in the support of
one candidate and not of the other.
"""


@dataclass(frozen=True)
class Case:
    """One job of a batch at a size and a density."""

    job: str = "inference"
    """``"inference"`` or ``"training"``, which is a forward and a backward pass."""
    batch: int = 1024
    m: int = 250
    n: int = 500
    density: float = 0.15
    """Share of non-zeros in the iterates; where a dictionary is learned, in x_1."""
    n_layers: int = 16
    tied: bool = True
    """Whether all layers share W."""
    learned: str = "all"
    """In training: ``"all"`` of A, W, steps, thresholds; ``"layers"``, the last two; or
    ``"dictionary"``, A = W alone."""
    isa: str = ""
    """Instruction set that our kernels are forced to, in a process of its own."""

    @property
    def title(self) -> str:
        """One line."""
        parts = [f"{self.job} B={self.batch}", f"m={self.m} n={self.n} K={self.n_layers}"]
        parts += [f"density {self.density:g}"]
        parts += [] if self.tied else ["untied"]
        parts += [f"learns {self.learned}"] if self.job == "training" else []
        parts += [f"forced {self.isa}"] if self.isa else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Outcome:
    """What was measured for one case."""

    case: Case
    density: float
    """Mean share of non-zeros of the iterates, as measured."""
    notes: dict[str, str]
    """Which form or shrinkage served a candidate best."""
    timings: dict[str, Timing]
    """Of every candidate."""
    kept: dict[str, int]
    """Bytes kept for the backward pass; empty for inference."""
    peak: dict[str, int]
    """Bytes by which a call made the process grow."""


def measure(case: Case, names: Collection[str], rounds: int) -> Outcome:
    """Time candidates for one case, on one thread unless their name says otherwise.

    Raises
    ------
    RuntimeError
        If a candidate does not compute the same as eager PyTorch.
    """
    if case.isa and case.isa != build_info()["isa"]:
        return _measure_in_process(case, names, rounds)
    torch.compiler.reset()
    make = make_dictionary_problem if case.learned == "dictionary" else make_problem
    tied = () if case.learned == "dictionary" else (case.tied,)
    problem = make(case.m, case.n, case.n_layers, case.density, *tied)
    turn = max(1, TURN_SAMPLES // case.batch)
    samples = [problem.sample(case.batch, seed) for seed in range(2, 2 + turn)]
    density = problem.density(torch.cat([s.measurements for s in samples]))
    infers = case.job == "inference"
    with threads(1), torch.inference_mode() if infers else nullcontext():
        made: Candidates = (
            inference(problem, [s.measurements for s in samples], names)
            if infers
            else training(problem, samples, names, case.learned)
        )
        _check_agreement(made, case.job)
        timings = interleaved(made.calls, turn, rounds)
        peaks = {name: peak_memory(call) for name, call in made.calls.items()}
        held = [*made.held, *(t for s in samples for t in s)]
        kept = {name: bytes_kept(loss, held) for name, loss in made.losses.items()}
    peak = {name: size for name, size in peaks.items() if size is not None}
    return Outcome(case, density, made.notes, timings, kept, peak)


def _measure_in_process(case: Case, names: Collection[str], rounds: int) -> Outcome:
    before = os.environ.get("FASTUNROLL_ISA")
    os.environ["FASTUNROLL_ISA"] = case.isa  # read when the kernels are loaded
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(measure, case, names, rounds).result()
    finally:
        if before is None:
            del os.environ["FASTUNROLL_ISA"]
        else:
            os.environ["FASTUNROLL_ISA"] = before


def _check_agreement(made: Candidates, job: str) -> None:
    expected = _tensors(made.reference(0))
    for name, call in made.calls.items():
        for ours, theirs in zip(_tensors(call(0)), expected, strict=True):
            difference = float((ours - theirs).norm() / theirs.norm())
            if not difference <= LARGEST_DIFFERENCE[job]:
                raise RuntimeError(f"{name} differs from eager PyTorch by {difference:.1e}")


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return tuple(map(torch.as_tensor, result if isinstance(result, tuple) else (result,)))
