"""The candidates of the GPU benchmark, each as a call that takes the number of an input.

Eager PyTorch runs the formula; CUDA graphs and torch.compile run its factored or its Gram form,
whichever is faster in eager mode, so that every rival appears at its best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softshrink

from fastunroll.backend import use_precision
from fastunroll.benchmarks.gpu.roofline import Job
from fastunroll.benchmarks.gpu.timing import Call, Clock, graphed
from fastunroll.benchmarks.problems import Problem
from fastunroll.benchmarks.recursions import Shrink, eager, eager_gram, shrink_by_clamp
from fastunroll.functional import soft_threshold, unrolled_prox_gradient
from fastunroll.prepared import prepare

OURS, OURS_GRAPH = "fastunroll", "fastunroll, graph"
EAGER, EAGER_GRAM, GRAPH = "eager", "eager, Gram form", "eager, graph"
COMPILED, AUTOTUNED = "torch.compile", "max-autotune"
RIVALS = (GRAPH, COMPILED, AUTOTUNED)
CANDIDATES = (OURS, OURS_GRAPH, EAGER, EAGER_GRAM, *RIVALS)

PRECISIONS = ("float32", "tf32", "mixed")
Function = Callable[..., Any]


@contextmanager
def precision_of(clock: Clock, precision: str) -> Iterator[None]:
    """Let PyTorch and our kernels form products in a mode; PyTorch has no mixed one."""
    with (
        clock.matmul_precision(precision),
        use_precision(precision),
    ):
        yield


def make_inputs(job: Job, problem: Problem | None, device: torch.device) -> tuple[Tensor, ...]:
    """Several inputs to take in turn, (n_inputs, batch, ...), as one would stay in a cache."""
    count = 4 if job.batch <= 1024 else 2
    if problem is None:
        return tuple(torch.randn(count, job.batch, job.n, device=device) for _ in range(2))
    samples = [problem.sample(job.batch, seed) for seed in range(2, 2 + count)]
    b = torch.stack([s.measurements for s in samples]).to(device)
    if job.kind == "forward":
        return (b,)
    return b, torch.stack([s.codes for s in samples]).to(device)


@dataclass(frozen=True)
class Functions:
    """What the candidates of a job run."""

    encoders: dict[str, Function]
    """Ours and those of eager PyTorch, from an input to codes, or to a loss."""
    finish: Callable[[Function], Function]
    """Makes the whole job of an encoder: adds the backward pass, which is not compiled as one."""

    def make(self, name: str, best: str, inputs: tuple[Tensor, ...]) -> Call:
        """Make a candidate; compiling may take a minute. ``best`` is eager PyTorch's fastest."""
        base = OURS if name == OURS_GRAPH else best if name in RIVALS else name
        encode = self.encoders[base]
        if name in (GRAPH, OURS_GRAPH):
            return graphed(self.finish(encode), inputs)
        if name not in (COMPILED, AUTOTUNED):
            function = self.finish(encode)
            return lambda i: function(*(stack[i] for stack in inputs))
        torch.compiler.reset()
        mode = "max-autotune" if name == AUTOTUNED else "default"
        compiled = self.finish(torch.compile(encode, fullgraph=True, dynamic=False, mode=mode))

        def call(i: int) -> object:
            torch.compiler.cudagraph_mark_step_begin()
            return compiled(*(stack[i] for stack in inputs))

        return call


def shrink_functions() -> Functions:
    """The soft threshold and its gradient, for (u, gradient of the result)."""

    def finish(shrink: Function) -> Function:
        def step(u: Tensor, grad: Tensor) -> Tensor:
            u = u.detach().requires_grad_()
            (found,) = torch.autograd.grad(shrink(u), u, grad)
            return found

        return step

    ours, theirs = partial(soft_threshold, threshold=0.5), partial(softshrink, lambd=0.5)
    return Functions({OURS: ours, EAGER: theirs}, finish)


def network_functions(
    job: Job, problem: Problem, precision: str, device: torch.device, dtype: torch.dtype
) -> Functions:
    """The network on b, or its training on b and the true codes, which learns all parameters."""
    given = (problem.dictionary, problem.weight, problem.steps, problem.thresholds)
    a, w, steps, thresholds = parameters = tuple(t.to(device, dtype).clone() for t in given)
    training = job.kind == "training"
    form = "factored" if precision == "mixed" else "auto"
    fixed = None if training else prepare(a, w, form=form)
    gram = a.mT @ w
    if training:
        for parameter in parameters:
            parameter.requires_grad_()

    def ours(b: Tensor) -> Tensor:
        if fixed is not None:
            return unrolled_prox_gradient(b, fixed, step=steps, threshold=thresholds).codes
        return unrolled_prox_gradient(b, a, w, step=steps, threshold=thresholds, form=form).codes

    def layers() -> tuple[Sequence[Tensor], Sequence[Tensor], Shrink]:
        return steps.unbind(), thresholds.unbind(), shrink_by_clamp

    def formula(b: Tensor) -> Tensor:
        return eager(b, a, [w] * job.n_layers, *layers())

    def in_gram_form(b: Tensor) -> Tensor:
        g = a.mT @ w if training else gram
        return eager_gram([b @ w] * job.n_layers, [g] * job.n_layers, *layers())

    encoders: dict[str, Function] = {OURS: ours, EAGER: formula, EAGER_GRAM: in_gram_form}
    if not training:
        return Functions(encoders, lambda encode: encode)

    def loss(encode: Function) -> Function:
        return lambda b, codes: mse_loss(encode(b), codes)

    def finish(function: Function) -> Function:
        return lambda *batch: torch.autograd.grad(function(*batch), parameters)

    return Functions({name: loss(encode) for name, encode in encoders.items()}, finish)
