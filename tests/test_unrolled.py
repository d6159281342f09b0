"""The fused recursion against its definition in plain PyTorch, forward and backward."""

from __future__ import annotations

import pytest
import torch
from helpers import all_needed, assert_close, make_arguments, output_gradients

from fastunroll._native import Tape
from fastunroll.ops import cpu, reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

CASES: dict[str, dict[str, object]] = {
    "gram": {},
    "gram, a matrix per layer": {"per_layer": True},
    "gram, objective and iterates": {"objective": True, "iterates": True},
    "gram, rule": {"step": "rule"},
    "gram, rule, everything": {
        "step": "rule",
        "objective": True,
        "iterates": True,
        "initial": True,
        "per_layer": True,
    },
    "gram, momentum": {"momentum": True},
    "gram, momentum, warm start": {"momentum": True, "initial": True, "previous": True},
    "gram, momentum, start without previous": {"momentum": True, "initial": True},
    "gram, heavy ball": {"momentum": True, "heavy_ball": True, "initial": True, "previous": True},
    "gram, heavy ball, rule": {"momentum": True, "heavy_ball": True, "step": "rule"},
    "gram, momentum, rule": {"momentum": True, "step": "rule", "initial": True},
    "gram, no skip": {"skip": False},
    "gram, no skip, momentum": {"skip": False, "momentum": True},
    "gram, support selection": {"bypass": 3},
    "gram, hard": {"prox": "hard"},
    "gram, nonnegative": {"prox": "nonnegative", "bypass": 2},
    "gram, smooth": {"prox": "smooth", "objective": True, "iterates": True},
    "gram, smooth, everything": {
        "prox": "smooth",
        "step": "rule",
        "threshold": "atom",
        "momentum": True,
        "initial": True,
    },
    "gram, firm": {"prox": "firm"},
    "gram, firm, per atom": {"prox": "firm", "step": "atom", "threshold": "atom"},
    "gram, scad": {"prox": "scad", "objective": True, "iterates": True, "initial": True},
    "gram, scad, momentum": {"prox": "scad", "momentum": True, "threshold": "full"},
    "gram, per atom": {"step": "atom", "threshold": "atom"},
    "gram, per sample": {"step": "sample", "threshold": "sample"},
    "gram, full": {"step": "full", "threshold": "full"},
    "gram, mixed": {"step": "sample", "threshold": "atom"},
    "gram, initial": {"initial": True},
    "learned gram": {"form": "learned gram"},
    "learned gram, a matrix per layer": {"form": "learned gram", "per_layer": True, "bypass": 2},
    "learned gram, W = A": {"form": "learned gram", "tied": True, "objective": True},
    "learned gram, rule": {"form": "learned gram", "tied": True, "step": "rule", "momentum": True},
    "learned gram, smooth": {"form": "learned gram", "prox": "smooth", "initial": True},
    "factored": {"form": "factored"},
    "factored, W = A": {"form": "factored", "tied": True},
    "factored, W per layer": {"form": "factored", "per_layer": True},
    "factored, objective and iterates": {
        "form": "factored",
        "objective": True,
        "iterates": True,
        "tied": True,
        "initial": True,
    },
    "factored, rule": {"form": "factored", "step": "rule", "objective": True},
    "factored, rule, W = A": {"form": "factored", "step": "rule", "tied": True},
    "factored, momentum": {"form": "factored", "momentum": True, "initial": True},
    "factored, momentum, objective": {"form": "factored", "momentum": True, "objective": True},
    "factored, heavy ball": {"form": "factored", "momentum": True, "heavy_ball": True},
    "factored, smooth": {"form": "factored", "prox": "smooth", "threshold": "sample"},
    "factored, smooth, W = A": {"form": "factored", "prox": "smooth", "tied": True},
    "factored, firm": {"form": "factored", "prox": "firm", "step": "rule", "objective": True},
    "factored, scad": {"form": "factored", "prox": "scad", "per_layer": True},
    "factored, everything": {
        "form": "factored",
        "per_layer": True,
        "step": "atom",
        "threshold": "sample",
        "momentum": True,
        "initial": True,
        "previous": True,
        "objective": True,
        "iterates": True,
        "bypass": 2,
    },
}
SIZES = [
    {"batch": 5, "m": 12, "n": 20},
    {"batch": 67, "m": 40, "n": 133, "layers": 3},
    {"batch": 1, "m": 70, "n": 64, "layers": 3},
    {"batch": 3, "m": 1, "n": 1, "layers": 2},
    {"batch": 33, "m": 150, "n": 300, "layers": 3},
    {"batch": 2, "m": 8, "n": 1100, "layers": 2},
]
LEVELS = {"sparse": 0.4, "dense": 1e-3}


def check(a: UnrolledArguments, tolerance: float) -> None:
    """Compare results and every gradient of the kernels with the reference."""
    results = cpu.unrolled(*a)
    names = ("codes", "objective", "iterates")
    for name, ours, expected in zip(names, results, reference.unrolled(a), strict=True):
        assert_close(ours, expected, tolerance, name)
    grads, needs = output_gradients(a), all_needed(a)
    ours_all = cpu.unrolled_backward(*grads, *a, needs)
    expected_all = reference.unrolled_backward(*grads, a, needs)
    for name, ours, expected in zip(
        a._fields[:N_DIFFERENTIABLE], ours_all, expected_all, strict=True
    ):
        assert_close(ours, expected, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s['batch']}x{s['m']}x{s['n']}")
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_reference_in_float64(case: str, size: dict[str, int], level: str) -> None:
    check(make_arguments(**CASES[case], **size, level=LEVELS[level]), 1e-9)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s['batch']}x{s['m']}x{s['n']}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "case",
    ["gram", "gram, per atom", "gram, initial", "gram, nonnegative", "gram, smooth", "gram, firm"],
)
def test_tape_gives_the_gradients_of_a_second_run(
    case: str, size: dict[str, int], dtype: torch.dtype
) -> None:
    options = {**CASES[case], "bypass": 0, "objective": True}
    a = make_arguments(**options, **size, level=0.3, dtype=dtype)
    assert cpu.tape_fits(a)
    grads, needs = output_gradients(a), all_needed(a)
    tape = Tape()
    results = cpu.run_unrolled(a, tape)
    iterates = reference.unrolled(a._replace(with_iterates=True))[2]
    entries = int((iterates[1:] != 0).sum())
    least = 4 * a.batch * a.n_layers + entries * (2 * dtype.itemsize + 1)
    assert least <= tape.nbytes <= least + a.batch * a.n_layers * (a.n_atoms // 255)
    for ours, expected in zip(results, cpu.run_unrolled(a), strict=True):
        assert (ours is None and expected is None) or torch.equal(ours, expected)
    expected = cpu.run_unrolled_backward(grads, a, needs)
    ours = cpu.run_unrolled_backward(grads, a, needs, tape)
    for name, one, other in zip(a._fields[:N_DIFFERENTIABLE], ours, expected, strict=True):
        assert torch.equal(one, other), f"gradient of {name}"
