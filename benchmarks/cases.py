"""The jobs that are timed, and the candidates that do them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from problems import SHRINKS, Network, Problem, eager, eager_gram, fused, make_problem
from timing import Batch, Call, bytes_kept, fastest, interleaved
from torch import Tensor
from torch.nn.functional import mse_loss, softshrink

from fastunroll import unrolled_prox_gradient

TURN_SAMPLES = 64
"""Samples that a turn runs through at least, so that a turn of single samples is long enough."""

LARGEST_DIFFERENCE = {"inference": 1e-3, "training": 1e-2}
"""Relative l2 distance between the results of two candidates, float32.

Gradients may differ more: an entry that equals its threshold up to rounding is in the support of
one candidate and not of the other.
"""


@dataclass(frozen=True)
class Case:
    """One job: ``"inference"`` or ``"training"`` of a batch at a size and a density."""

    job: str
    batch: int
    m: int = 250
    n: int = 500
    density: float = 0.15

    def title(self, n_layers: int) -> str:
        sizes = f"m={self.m} n={self.n} K={n_layers}"
        return f"{self.job} B={self.batch}, {sizes}, density {self.density:g}"


@dataclass(frozen=True)
class Outcome:
    """What was measured for one case."""

    case: Case
    n_layers: int
    density: float
    """Mean share of non-zeros of the iterates, as measured."""
    shrink: str
    """The shrinkage that served eager PyTorch best."""
    seconds: dict[str, list[float]]
    """Seconds per call of every candidate in every round."""
    kept: dict[str, int]
    """Bytes kept for the backward pass; empty for inference."""


def measure(case: Case, n_layers: int, rounds: int) -> Outcome:
    """Time all candidates for one case on the threads that torch is set to."""
    torch.compiler.reset()
    problem = make_problem(case.m, case.n, n_layers, case.density)
    turn = max(1, TURN_SAMPLES // case.batch)
    samples = [problem.sample(case.batch, seed) for seed in range(2, 2 + turn)]
    density = problem.density(torch.cat([s.measurements for s in samples]))
    kept: dict[str, int] = {}
    if case.job == "inference":
        batches: list[Batch] = [(s.measurements,) for s in samples]
        with torch.inference_mode():
            shrink, calls = _inference_calls(problem, batches)
            seconds = interleaved(_agreeing(calls, batches[0], case.job), batches, rounds)
    else:
        batches = [tuple(s) for s in samples]
        parameters = [p.clone().requires_grad_() for p in problem.parameters]
        shrink, losses = _training_losses(parameters, batches)
        steps = {name: _step(loss, parameters) for name, loss in losses.items()}
        seconds = interleaved(_agreeing(steps, batches[0], case.job), batches, rounds)
        kept = {name: bytes_kept(loss, batches[0], parameters) for name, loss in losses.items()}
    return Outcome(case, n_layers, density, shrink, seconds, kept)


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, fullgraph=True, dynamic=False)


def _inference_calls(problem: Problem, batches: list[Batch]) -> tuple[str, dict[str, Call]]:
    """Candidates (b) -> codes, and the shrinkage that serves eager PyTorch best.

    In Gram form, steps and thresholds are plain numbers: the fastest that PyTorch offers a network
    whose training is over.
    """
    a, w, steps, thresholds = problem.parameters
    gram = (a.double().mT @ w.double()).float()
    numbers = (steps.tolist(), thresholds.tolist())
    scalars = (steps.unbind(), thresholds.unbind())

    def formula(layers: tuple[Any, Any], shrink: str) -> Callable[[Tensor], Tensor]:
        return lambda b: eager(b, a, w, *layers, SHRINKS[shrink])

    def in_gram_form(b: Tensor) -> Tensor:
        return eager_gram(b, gram, w, *numbers, softshrink)

    shrink = fastest({name: formula(scalars, name) for name in SHRINKS}, batches)
    return shrink, {
        "fused": fused(problem),
        "fused, nn.Module": Network(problem),
        "eager": formula(scalars, shrink),
        "eager, Gram form": in_gram_form,
        "torch.compile": _compiled(formula((steps, thresholds), shrink)),
        "torch.compile, Gram form": _compiled(in_gram_form),
    }


def _training_losses(
    parameters: list[Tensor], batches: list[Batch]
) -> tuple[str, dict[str, Callable[..., Tensor]]]:
    """Candidates (b, true codes) -> loss, and the shrinkage that serves eager PyTorch best."""
    a, w, steps, thresholds = parameters

    def ours(b: Tensor, codes: Tensor) -> Tensor:
        found = unrolled_prox_gradient(b, a, w, step=steps, threshold=thresholds).codes
        return mse_loss(found, codes)

    def formula(shrink: str) -> Callable[..., Tensor]:
        run = SHRINKS[shrink]
        return lambda b, codes: mse_loss(eager(b, a, w, steps, thresholds, run), codes)

    def in_gram_form(b: Tensor, codes: Tensor) -> Tensor:
        found = eager_gram(b, a.mT @ w, w, steps, thresholds, SHRINKS[shrink])
        return mse_loss(found, codes)

    shrink = fastest({name: _step(formula(name), parameters) for name in SHRINKS}, batches)
    return shrink, {
        "fused": ours,
        "eager": formula(shrink),
        "eager, Gram form": in_gram_form,
        "torch.compile": _compiled(formula(shrink)),
        "torch.compile, Gram form": _compiled(in_gram_form),
    }


def _step(loss: Callable[..., Tensor], parameters: list[Tensor]) -> Call:
    """Forward and backward pass, without an optimiser."""
    return lambda *batch: torch.autograd.grad(loss(*batch), parameters)


def _agreeing(calls: dict[str, Call], batch: Batch, job: str) -> dict[str, Call]:
    """The calls, once their results are seen to agree with those of eager PyTorch.

    Raises
    ------
    RuntimeError
        If a candidate does not compute the same.
    """
    expected = _tensors(calls["eager"](*batch))
    for name, call in calls.items():
        for ours, theirs in zip(_tensors(call(*batch)), expected, strict=True):
            difference = float((ours - theirs).norm() / theirs.norm())
            if not difference <= LARGEST_DIFFERENCE[job]:
                raise RuntimeError(f"{name} differs from eager by {difference:.1e}")
    return calls


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)
