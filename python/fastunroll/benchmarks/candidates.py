"""The candidates for a job, by name, each as a call that takes the number of an input.

Every rival appears at its best: its shrinkage, and its factored or Gram form, are those that are
faster at this job, found before the measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softshrink

from fastunroll import runtime
from fastunroll.benchmarks.problems import Network, Problem
from fastunroll.benchmarks.recursions import (
    FORMS,
    SHRINKS,
    eager,
    eager_gram,
    numpy_loop,
    onnx_session,
)
from fastunroll.benchmarks.timing import Call, fastest
from fastunroll.data import SparseBatch
from fastunroll.functional import unrolled_prox_gradient
from fastunroll.prepared import prepare

OURS, ENGINE, OURS_2 = "fastunroll", "fastunroll.runtime", "fastunroll, 2 threads"
EAGER, EAGER_GRAM, COMPILED = "eager", "eager, Gram form", "torch.compile"
ONNX, NUMPY = "ONNX Runtime", "NumPy"

INFERENCE = (OURS, ENGINE, EAGER, EAGER_GRAM, COMPILED, ONNX, NUMPY)
TRAINING = (OURS, EAGER, EAGER_GRAM, COMPILED)

Loss = Callable[[int], Tensor]


@dataclass(frozen=True)
class Candidates:
    """Calls to time, and what else the measurement needs."""

    calls: dict[str, Call]
    reference: Call
    """Eager PyTorch, which all must agree with."""
    notes: dict[str, str]
    losses: dict[str, Loss] = field(default_factory=dict)
    held: Sequence[Tensor] = ()
    """Parameters and prepared matrices, which exist whether or not a gradient is wanted."""


def inference(problem: Problem, batches: Sequence[Tensor], names: Collection[str]) -> Candidates:
    """Candidates from measurements to codes; parameters are fixed, so all may prepare them.

    ``eager`` is the formula. In Gram form, G is formed beforehand, steps and thresholds are plain
    numbers, and the shrinkage is ``softshrink``: the fastest that PyTorch offers a network whose
    training is over.
    """
    a, steps, thresholds = problem.dictionary, problem.steps, problem.thresholds
    n_layers, tied = len(steps), problem.weight.dim() == 2
    weights = _per_layer(problem.weight, n_layers)
    gram = (a.double().mT @ problem.weight.double()).to(a.dtype)
    grams = _per_layer(gram, n_layers)
    numbers = (steps.tolist(), thresholds.tolist())
    scalars = (steps.unbind(), thresholds.unbind())

    def formula(layers: tuple[Any, Any], shrink: str) -> Callable[[Tensor], Tensor]:
        return lambda b: eager(b, a, weights, *layers, SHRINKS[shrink])

    def in_gram_form(b: Tensor) -> Tensor:
        linears = [b @ weights[0]] * n_layers if tied else [b @ w for w in weights]
        return eager_gram(linears, grams, *numbers, softshrink)

    inputs = [(b,) for b in batches]
    shrink = _fastest(lambda name: formula(scalars, name), SHRINKS, inputs)
    functions: dict[str, Callable[..., Any]] = {
        EAGER: formula(scalars, shrink),
        EAGER_GRAM: in_gram_form,
    }
    notes = {EAGER: shrink}
    if COMPILED in names:
        notes[COMPILED] = _fastest(functions.__getitem__, (EAGER, EAGER_GRAM), inputs)
        gains = notes[COMPILED] == EAGER_GRAM
        functions[COMPILED] = _compiled(
            in_gram_form if gains else formula((steps, thresholds), shrink)
        )
    network = Network(problem)
    functions[OURS], functions[OURS_2] = network, _on_two_threads(network)
    calls = {name: _over(f, inputs) for name, f in functions.items()}
    arrays = [(b.numpy(),) for b in batches]
    calls[ENGINE] = _over(runtime.Engine(problem.program), arrays)
    matrices = _per_layer(problem.weight.numpy(), n_layers)
    rivals: dict[str, Callable[[str], Callable[..., Any]]] = {
        NUMPY: lambda form: numpy_loop(form, a.numpy(), matrices, *numbers),
        ONNX: lambda form: onnx_session(form, a.numpy(), matrices, *numbers, n_threads=1),
    }
    for name, make in rivals.items():
        if name in names:
            notes[name] = _fastest(make, FORMS, arrays)
            calls[name] = _over(make(notes[name]), arrays)
    return Candidates({name: calls[name] for name in names}, calls[EAGER], notes)


def training(
    problem: Problem, batches: Sequence[SparseBatch], names: Collection[str], learned: str
) -> Candidates:
    """Candidates from measurements to gradients: a forward and a backward pass, no optimiser.

    The loss is the mean squared error to the true codes or, where a dictionary is learned, of the
    rebuilt measurements.
    """
    autoencoder = learned == "dictionary"
    a, steps, thresholds = (
        t.clone() for t in (problem.dictionary, problem.steps, problem.thresholds)
    )
    w = a if autoencoder else problem.weight.clone()
    parameters = {"all": (a, w, steps, thresholds), "layers": (steps, thresholds)}.get(
        learned, (a,)
    )
    for parameter in parameters:
        parameter.requires_grad_()
    n_layers = len(steps)
    fixed = None if a.requires_grad else prepare(a, w)

    def ours(b: Tensor) -> Tensor:
        matrices = (fixed,) if fixed is not None else (a,) if autoencoder else (a, w)
        return unrolled_prox_gradient(b, *matrices, step=steps, threshold=thresholds).codes

    def formula(shrink: str) -> Callable[[Tensor], Tensor]:
        return lambda b: eager(b, a, _per_layer(w, n_layers), steps, thresholds, SHRINKS[shrink])

    def in_gram_form(b: Tensor) -> Tensor:
        gram = a.mT @ w if fixed is None else gram_of_fixed
        linears = [b @ w] * n_layers if w.dim() == 2 else list(b @ w)
        grams = _per_layer(gram, n_layers)
        return eager_gram(linears, grams, steps, thresholds, SHRINKS[shrink])

    def loss_of(encode: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        if autoencoder:
            return lambda b, codes: mse_loss(encode(b) @ a.mT, b)
        return lambda b, codes: mse_loss(encode(b), codes)

    def step(loss: Callable[..., Tensor]) -> Callable[..., object]:
        return lambda *batch: torch.autograd.grad(loss(*batch), parameters)

    gram_of_fixed = a.detach().mT @ w.detach()
    shrink = _fastest(lambda name: step(loss_of(formula(name))), SHRINKS, batches)
    losses = {
        OURS: loss_of(ours),
        EAGER: loss_of(formula(shrink)),
        EAGER_GRAM: loss_of(in_gram_form),
    }
    notes = {EAGER: shrink}
    if COMPILED in names:
        better = _fastest(lambda name: step(losses[name]), (EAGER, EAGER_GRAM), batches)
        notes[COMPILED], losses[COMPILED] = better, _compiled(losses[better])
    calls = {name: _over(step(loss), batches) for name, loss in losses.items()}
    prepared = () if fixed is None or fixed.gram is None else (fixed.gram, *fixed.packed)
    return Candidates(
        {name: calls[name] for name in names},
        calls[EAGER],
        notes,
        {name: _over(losses[name], batches) for name in names},
        (a, w, steps, thresholds, gram_of_fixed, *prepared),
    )


def _over(function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> Callable[[int], Any]:
    """The function on the input of a given number."""
    return lambda i: function(*inputs[i])


def _fastest(
    make: Callable[[str], Callable[..., Any]],
    names: Iterable[str],
    inputs: Sequence[tuple[Any, ...]],
) -> str:
    """The name whose function takes the shortest time."""
    return fastest({name: _over(make(name), inputs) for name in names}, len(inputs))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)


def _on_two_threads(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(b: Tensor) -> Tensor:
        torch.set_num_threads(2)
        codes = function(b)
        torch.set_num_threads(1)
        return codes

    return run


def _per_layer(matrix: Any, n_layers: int) -> list[Any]:
    """One matrix for each layer, the same object where they share it."""
    return [matrix] * n_layers if matrix.ndim == 2 else list(matrix)
