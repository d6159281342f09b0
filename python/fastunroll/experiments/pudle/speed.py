"""What a training step costs beside plain PyTorch: time and memory, in one process."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from fastunroll.benchmarks.timing import bytes_kept, interleaved, peak_memory
from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import PUDLE
from fastunroll.experiments.pudle.samples import AtomProblem
from fastunroll.experiments.pudle.settings import RecoverySettings

FUSED, EAGER, GRAM = "fused", "eager", "eager, Gram form"


def step_costs(s: RecoverySettings, sparsity: int, rounds: int, seed: int) -> dict[str, Any]:
    """Median seconds and memory of a step of g_ae-ls with Adam, by candidate.

    All take the same step on the same samples, in turns. ``"time ratio"``, ``"memory ratio"``
    and ``"kept ratio"`` are those of the faster, and of the leaner, of the two eager forms to ours:
    of the time, of the peak memory of a step beyond what it starts with (a page at least), and of
    the bytes kept between the passes. ``"gradient error"`` is the largest relative difference of
    their gradients from ours.
    """
    problem = AtomProblem.make(s.n_measurements, s.n_atoms, sparsity, seed)
    generator = torch.Generator().manual_seed(stream_seed(seed, "training"))
    x = problem.sample(s.batch_size, generator).measurements
    start = problem.start(s.noise, seed)

    def new_model() -> PUDLE:
        return PUDLE(start, s.n_layers, lam=s.lam, step=s.step, constraint="normalised")

    losses: dict[str, Callable[[PUDLE], Tensor]] = {
        FUSED: lambda model: model.loss(x),
        EAGER: lambda model: _loss(model, x, _factored(model.dictionary, x, s)),
        GRAM: lambda model: _loss(model, x, _gram(model.dictionary, x, s)),
    }
    steps, gradients, kept = {}, {}, {}
    for name, loss in losses.items():
        model = new_model()
        (gradients[name],) = torch.autograd.grad(loss(model), model.dictionary)
        kept[name] = _kept(model, loss, x)
        steps[name] = _step(model, loss, s)
    timings = interleaved(steps, 1, rounds)
    seconds = {name: timing.median for name, timing in timings.items()}
    memory = {name: peak_memory(step) for name, step in steps.items()}
    found: dict[str, Any] = {
        "step seconds": seconds,
        "peak bytes": memory,
        "kept bytes": kept,
        "time ratio": min(seconds[EAGER], seconds[GRAM]) / seconds[FUSED],
        "kept ratio": min(kept[EAGER], kept[GRAM]) / kept[FUSED],
        "gradient error": max(
            float((gradients[name] - gradients[FUSED]).norm() / gradients[FUSED].norm())
            for name in (EAGER, GRAM)
        ),
        "density": float((new_model()(x) != 0).double().mean()),
        "threads": torch.get_num_threads(),
    }
    grown = [bytes_ for name in losses if (bytes_ := memory[name]) is not None]
    if len(grown) == len(losses):
        fused, eager, gram = (max(mmap.PAGESIZE, bytes_) for bytes_ in grown)
        found["memory ratio"] = min(eager, gram) / fused
    return found


def _step(
    model: PUDLE, loss: Callable[[PUDLE], Tensor], s: RecoverySettings
) -> Callable[[int], None]:
    optimizer = torch.optim.Adam([model.dictionary], lr=s.learning_rate, eps=s.epsilon, fused=True)

    def step(_: int) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss(model))
        optimizer.step()
        model.project()

    return step


def _kept(model: PUDLE, loss: Callable[[PUDLE], Tensor], x: Tensor) -> int:
    return bytes_kept(lambda _: loss(model), [x, model.dictionary])


def _factored(dictionary: Tensor, x: Tensor, s: RecoverySettings) -> Tensor:
    """Codes of z <- S(z - alpha (z D^T - x) D)."""
    codes = x.new_zeros(len(x), s.n_atoms)
    for _ in range(s.n_layers):
        gradient = (codes @ dictionary.mT - x) @ dictionary
        codes = softshrink(codes - s.step * gradient, s.step * s.lam)
    return codes


def _gram(dictionary: Tensor, x: Tensor, s: RecoverySettings) -> Tensor:
    """Codes of z <- S(z G + alpha x D) with G = I - alpha D^T D."""
    gram = torch.eye(s.n_atoms) - s.step * dictionary.mT @ dictionary
    drive = s.step * x @ dictionary
    codes = x.new_zeros(len(x), s.n_atoms)
    for _ in range(s.n_layers):
        codes = softshrink(codes @ gram + drive, s.step * s.lam)
    return codes


def _loss(model: PUDLE, x: Tensor, codes: Tensor) -> Tensor:
    return 0.5 * (x - model.decode(codes)).square().sum(dim=1).mean()
