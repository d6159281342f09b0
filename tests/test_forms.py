"""The mixed form, tapes of every form, and supports from empty to full, against the reference."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from helpers import (
    all_needed,
    assert_close,
    dictionary,
    make_arguments,
    output_gradients,
)
from torch import Tensor

import fastunroll
from fastunroll import GradientNormStep, UnrolledResult
from fastunroll import unrolled_prox_gradient as unroll
from fastunroll._native import Tape
from fastunroll.benchmarks.timing import bytes_kept
from fastunroll.ops import cpu, reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE

B, M, N, K = 5, 12, 20, 4
FORMS = ("gram", "factored", "mixed")


def randn(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive(*shape: int, seed: int, scale: float) -> Tensor:
    return (scale * (0.5 + randn(*shape, seed=seed).abs())).requires_grad_()


# --- The mixed form

CASES: dict[str, dict[str, Any]] = {
    "W": {},
    "W = A": {"weight": None},
    "W = A, objective": {"weight": None, "objective_weight": 0.3, "iterates": True},
    "W = A, momentum": {"weight": None, "momentum": (0.3 * randn(K, seed=5)).requires_grad_()},
    "W = A, steps only": {
        "weight": None,
        "dictionary": dictionary(M, N),
        "measurements": randn(B, M),
    },
    "W per layer": {"weight": (dictionary(M, N) + 0.05 * randn(K, M, N)).requires_grad_()},
    "nonnegative": {"prox": "nonnegative"},
    "hard": {"prox": "hard"},
    "smooth": {"prox": "smooth"},
    "firm": {"prox": "firm", "prox_shape": (1.5 + randn(K, seed=7).abs()).requires_grad_()},
    "scad": {"prox": "scad", "prox_shape": 3.7},
    "support selection": {"bypass": (1, 2, 3, 4)},
    "objective and iterates": {"objective_weight": 0.3, "iterates": True},
    "start": {"initial": randn(B, N, seed=8).requires_grad_()},
    "rule": {"step": GradientNormStep(0.1 * randn(K), randn(K, seed=4), 0.05, 0.4)},
    "momentum": {"momentum": (0.3 * randn(K, seed=5)).requires_grad_()},
    "per atom": {"threshold": positive(K, N, seed=6, scale=0.1)},
}


def arguments(case: str) -> dict[str, Any]:
    return {
        "measurements": randn(B, M).requires_grad_(),
        "dictionary": dictionary(M, N).requires_grad_(),
        "weight": (dictionary(M, N) + 0.05 * randn(M, N)).requires_grad_(),
        "step": positive(K, seed=1, scale=0.2),
        "threshold": positive(K, seed=2, scale=0.1),
        **CASES[case],
    }


def total(result: UnrolledResult) -> Tensor:
    """A number to which every result contributes."""
    given = [r for r in result if r is not None]
    return sum((r * randn(*r.shape, seed=i)).sum() for i, r in enumerate(given))  # type: ignore[return-value]


def gradients(options: dict[str, Any], form: str, *, again: bool = False) -> list[Tensor]:
    """Codes, and the gradients of every tensor, once or of a penalty on the first ones."""
    leaves = [t for t in options.values() if isinstance(t, Tensor) and t.requires_grad]
    result = unroll(**options, form=form)
    value = total(result)
    if again:
        first = torch.autograd.grad(value, leaves, create_graph=True)
        value = value + sum(g.square().sum() for g in first)
    return [result.codes.detach(), *torch.autograd.grad(value, leaves, materialize_grads=True)]


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_mixed_form(case: str) -> None:
    options = arguments(case)
    ours = gradients(options, "mixed")
    with fastunroll.use_backend("reference"):
        expected = gradients(options, "factored")
    for index, (x, y) in enumerate(zip(ours, expected, strict=True)):
        assert_close(x, y, 1e-9, f"result {index}")
    assert float((ours[0] != 0).double().mean()) > 0


@pytest.mark.parametrize(
    "case", ["W", "W = A", "W = A, momentum", "smooth", "objective and iterates", "start"]
)
def test_second_derivatives_of_the_mixed_form(case: str) -> None:
    options = arguments(case)
    ours = gradients(options, "mixed", again=True)
    with fastunroll.use_backend("reference"):
        expected = gradients(options, "factored", again=True)
    for index, (x, y) in enumerate(zip(ours, expected, strict=True)):
        assert_close(x, y, 1e-9, f"result {index}")


@pytest.mark.parametrize("case", ["W", "W = A", "W = A, momentum"])
def test_the_mixed_form_keeps_no_gram_matrix(case: str) -> None:
    atoms = 300
    given = dictionary(M, atoms).requires_grad_()
    options = {**arguments(case), "dictionary": given}
    if options["weight"] is not None:
        options["weight"] = (2 * given.detach()).requires_grad_()
    held = [t for t in options.values() if isinstance(t, Tensor)]
    kept = bytes_kept(lambda _: unroll(**options, form="mixed").codes.sum(), held)
    assert kept < atoms * atoms * given.element_size() / 2
    node: Any = unroll(**options, form="mixed").codes.grad_fn
    assert node.constants[-1] == ()  # the copies in the kernels' layout


@pytest.mark.parametrize("case", ["W = A", "W per layer"])
def test_the_mixed_form_runs_forward_in_gram_form(case: str) -> None:
    options = {**arguments(case), "measurements": randn(B, M)}
    mixed, factored = (
        unroll(**options, form="mixed").codes,
        unroll(**options, form="factored").codes,
    )
    with torch.no_grad():
        gram = unroll(**options, form="gram").codes
    assert torch.equal(mixed, gram)
    assert not torch.equal(mixed, factored)


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++"),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
def test_the_compiled_mixed_form(backend: str) -> None:
    options = arguments("objective and iterates")
    leaves = [t for t in options.values() if isinstance(t, Tensor)]

    def run() -> Tensor:
        result = unroll(**options, form="mixed")
        return result.codes.sum() + result.objective.sum() + result.iterates.square().sum()

    torch._dynamo.reset()
    ours, expected = torch.compile(run, fullgraph=True, backend=backend)(), run()
    assert_close(ours.detach(), expected.detach(), 1e-12, "value")
    found = zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves), strict=True
    )
    for x, y in found:
        assert_close(x, y, 1e-10, "gradient")


# --- Tapes

TAPED: dict[str, dict[str, Any]] = {
    "gram, selection": {"bypass": 3},
    "gram, selection, no skip": {"bypass": 3, "skip": False},
    "factored": {"form": "factored"},
    "factored, W = A": {"form": "factored", "tied": True},
    "factored, W per layer": {"form": "factored", "per_layer": True},
    "factored, selection": {"form": "factored", "bypass": 9, "prox": "nonnegative"},
    "factored, smooth": {"form": "factored", "prox": "smooth"},
    "factored, scad, start": {"form": "factored", "prox": "scad", "initial": True},
}


@pytest.mark.parametrize("objective", [False, True])
@pytest.mark.parametrize("size", [{}, {"batch": 41, "m": 30, "n": 300, "layers": 3}], ids=str)
@pytest.mark.parametrize("case", TAPED)
def test_a_tape_gives_the_gradients_of_a_second_run_and_of_the_reference(
    case: str, size: dict[str, int], objective: bool
) -> None:
    a = make_arguments(**TAPED[case], **size, objective=objective, level=0.3)
    assert cpu.tape_fits(a)
    grads, needs = output_gradients(a), all_needed(a)
    tape = Tape()
    cpu.run_unrolled(a, tape)
    ours = cpu.run_unrolled_backward(grads, a, needs, tape)
    again = cpu.run_unrolled_backward(grads, a, needs)
    expected = reference.unrolled_backward(*grads, a, needs)
    names = a._fields[:N_DIFFERENTIABLE]
    for name, one, two, three in zip(names, ours, again, expected, strict=True):
        assert torch.equal(one, two), f"gradient of {name}"
        assert_close(one, three, 1e-9, f"gradient of {name}")


# --- Supports from empty to full

SUPPORTS = {0.0: 1e6, 1.0: 0.0}
"""Density of all codes, and the threshold for it."""


@pytest.mark.parametrize("density", SUPPORTS)
@pytest.mark.parametrize("objective", [False, True])
@pytest.mark.parametrize("prox", ["soft", "hard", "firm", "scad"])
@pytest.mark.parametrize("form", FORMS)
def test_empty_and_full_supports(form: str, prox: str, objective: bool, density: float) -> None:
    options: dict[str, Any] = {
        "measurements": randn(67, 30).requires_grad_(),
        "dictionary": dictionary(30, 150).requires_grad_(),
        "step": positive(K, seed=1, scale=0.2),
        "threshold": torch.full((K,), SUPPORTS[density], dtype=torch.float64, requires_grad=True),
        "prox": prox,
        "prox_shape": 3.0 if prox in ("firm", "scad") else None,
        "objective_weight": 0.2 if objective else None,
    }
    ours = gradients(options, form)
    with fastunroll.use_backend("reference"):
        expected = gradients(options, "factored")
    assert float((ours[0] != 0).double().mean()) == density
    for index, (x, y) in enumerate(zip(ours, expected, strict=True)):
        assert_close(x, y, 1e-9, f"result {index}")
    assert any(bool(gradient.any()) for gradient in ours[1:]) == (density > 0 or objective)


@pytest.mark.parametrize("form", FORMS)
def test_supports_that_are_full_in_one_layer_and_empty_in_the_next(form: str) -> None:
    options: dict[str, Any] = {
        "measurements": randn(40, 30).requires_grad_(),
        "dictionary": dictionary(30, 150).requires_grad_(),
        "step": positive(4, seed=1, scale=0.2),
        "threshold": torch.tensor([0.0, 1e6, 0.0, 0.1], dtype=torch.float64, requires_grad=True),
        "iterates": True,
    }
    ours = gradients(options, form)
    with fastunroll.use_backend("reference"):
        expected = gradients(options, "factored")
    for index, (x, y) in enumerate(zip(ours, expected, strict=True)):
        assert_close(x, y, 1e-9, f"result {index}")
