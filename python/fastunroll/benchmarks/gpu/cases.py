"""What is measured, in which order, and the measurement of one job in one mode."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from fastunroll.benchmarks.gpu.candidates import (
    CANDIDATES,
    COMPILED,
    EAGER,
    EAGER_GRAM,
    OURS,
    OURS_GRAPH,
    PRECISIONS,
    Functions,
    make_inputs,
    network_functions,
    precision_of,
    shrink_functions,
)
from fastunroll.benchmarks.gpu.roofline import Ceilings, Job
from fastunroll.benchmarks.gpu.timing import Call, Clock
from fastunroll.benchmarks.problems import Problem, make_problem

SIZES = ((250, 500), (768, 3072), (1000, 1500))
BATCHES = (16384, 1, 64, 1024)
KINDS = ("forward", "training")
SHRINK = Job("shrink", 16384, 0, 4096, 0)
DENSITY = 0.15
ROUNDS = 20


@dataclass
class Outcome:
    """What was measured for one job in one mode."""

    job: Job
    precision: str
    floor: float
    """The roofline's time in seconds."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Medians by candidate."""
    peak: dict[str, int] = field(default_factory=dict)
    """Bytes."""
    errors: dict[str, float] = field(default_factory=dict)
    """Relative l2 distance of the results from the formula's in float64; of gradients, which take
    much memory there, from those in float32."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Reasons by candidate."""


def standard_jobs() -> list[tuple[Job, str]]:
    """All jobs in all modes, those of the targets first."""
    jobs = [(SHRINK, "float32")]
    for size in SIZES:
        several = product(BATCHES, KINDS, PRECISIONS)
        jobs += [(Job(kind, batch, *size), precision) for batch, kind, precision in several]
    return jobs


def candidates_of(job: Job, precision: str) -> tuple[str, ...]:
    """Those that a job has in a mode; PyTorch has no mixed one."""
    if precision == "mixed":
        return (OURS, OURS_GRAPH)
    return (OURS, EAGER, COMPILED) if job.kind == "shrink" else CANDIDATES


def measure(
    job: Job,
    precision: str,
    candidates: Sequence[str],
    clock: Clock,
    ceilings: Ceilings,
    *,
    rounds: int = ROUNDS,
    deadline: float = float("inf"),
) -> Outcome:
    """Time candidates of one job in one mode; what fails to run is told, not hidden."""
    outcome = Outcome(job, precision, ceilings.seconds(job, precision))
    problem = None if job.kind == "shrink" else _problem(job.m, job.n, job.n_layers)
    n_inputs, calls, best = 1, dict[str, Call](), EAGER
    with (
        torch.inference_mode() if job.kind == "forward" else nullcontext(),
        precision_of(clock, precision),
    ):
        inputs = make_inputs(job, problem, clock.device)
        n_inputs = len(inputs[0])
        functions = _functions(job, problem, precision, clock.device)
        dtype = torch.float32 if job.kind == "training" else torch.float64
        exact = _functions(job, problem, "float32", clock.device, dtype)
        with clock.matmul_precision("float32"):
            first = tuple(stack[:1].to(dtype) for stack in inputs)
            expected = _tensors(exact.make(EAGER, EAGER, first)(0))
        for name in candidates:
            if time.monotonic() > deadline:
                outcome.left_out[name] = "no time"
                continue
            try:
                call = functions.make(name, best, inputs)
                outcome.errors[name] = _distance(_tensors(call(0)), expected)
                outcome.peak[name] = clock.peak_bytes(call)
            except RuntimeError as error:
                outcome.left_out[name] = str(error).splitlines()[0][:200]
                continue
            calls[name] = call
            if name == EAGER_GRAM:
                forms = {form: calls[form] for form in (EAGER, EAGER_GRAM) if form in calls}
                times = clock.median(forms, n_inputs, rounds=3)
                best = min(times, key=times.__getitem__)
        outcome.seconds = clock.median(calls, n_inputs, rounds)
    return outcome


@cache
def _problem(m: int, n: int, n_layers: int) -> Problem:
    return make_problem(m, n, n_layers, DENSITY)


def _functions(
    job: Job,
    problem: Problem | None,
    precision: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Functions:
    if problem is None:
        return shrink_functions()
    return network_functions(job, problem, precision, device, dtype)


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _distance(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)
