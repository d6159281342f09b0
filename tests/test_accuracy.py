"""Rounding errors in float32: at most twice those of the same computation in plain PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from helpers import all_needed, cast, make_arguments, output_gradients
from torch import Tensor

from fastunroll.ops import cpu, reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

FLOOR = 2 * torch.finfo(torch.float32).eps
"""Error in units of the largest value that is allowed where plain PyTorch happens to be exact."""

Incoming = Sequence[Tensor | None]
Backend = tuple[
    Callable[[UnrolledArguments], tuple[Tensor, ...]],
    Callable[[Incoming, UnrolledArguments, list[bool]], tuple[Tensor, ...]],
]

SIZES = {
    "64x128": {"m": 64, "n": 128, "batch": 40, "layers": 8},
    "250x500": {"m": 250, "n": 500, "batch": 24, "layers": 6},
    "100x37": {"m": 100, "n": 37, "batch": 40, "layers": 8},
}
CASES: dict[str, dict[str, object]] = {
    "gram": {"objective": True, "iterates": True},
    "gram, dense": {"level": 1e-3},
    "gram, rule": {"step": "rule"},
    "gram, momentum": {"momentum": True, "initial": True},
    "gram, per atom": {"step": "atom", "threshold": "atom"},
    "factored": {"form": "factored", "objective": True, "iterates": True},
    "factored, W = A": {"form": "factored", "tied": True, "initial": True},
    "factored, rule": {"form": "factored", "step": "rule"},
    "factored, per sample": {"form": "factored", "step": "sample", "threshold": "sample"},
}


def relative_error(ours: Tensor, exact: Tensor) -> float:
    """Largest error in units of the largest exact value; 0 for an empty result."""
    if exact.numel() == 0:
        return 0.0
    return float((ours.double() - exact).abs().max() / exact.abs().max())


def assert_not_worse_than_torch(ours: float, torchs: float, what: str) -> None:
    """Compare the relative errors of two float32 results."""
    assert ours <= 2 * torchs + FLOOR, f"{what}: error {ours:.2e}, in plain PyTorch {torchs:.2e}"


def results(backend: Backend, a: UnrolledArguments, incoming: Incoming) -> dict[str, Tensor]:
    """Everything that the forward and the backward pass return, by name."""
    forward, backward = backend
    names = ("codes", "objective", "iterates")
    gradients = (f"gradient of {name}" for name in a._fields[:N_DIFFERENTIABLE])
    found = dict(zip(names, forward(a), strict=True))
    return found | dict(zip(gradients, backward(incoming, a, all_needed(a)), strict=True))


NATIVE: Backend = (
    lambda a: cpu.unrolled(*a),
    lambda g, a, needs: cpu.unrolled_backward(*g, *a, needs),
)
TORCH: Backend = (reference.unrolled, lambda g, a, needs: reference.unrolled_backward(*g, a, needs))


def problems(count: int, **options: object) -> Iterator[UnrolledArguments]:
    """Float32 problems in which both backends find the supports of float64.

    An entry within rounding of its threshold may fall on either side; its gradient then says
    nothing about accuracy.
    """
    for seed in range(10 * count):
        a = make_arguments(dtype=torch.float32, seed=seed, **options)
        traced = a._replace(with_iterates=True)
        exact = reference.unrolled(cast(traced, torch.float64))[2] != 0
        if all(torch.equal(run(traced)[2] != 0, exact) for run, _ in (NATIVE, TORCH)):
            yield a
            count -= 1
        if count == 0:
            return
    raise AssertionError("too few suitable problems")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_float32_errors(case: str, size: str) -> None:
    ours: dict[str, float] = defaultdict(float)
    torchs: dict[str, float] = defaultdict(float)
    for a in problems(4, **{"level": 0.3, **SIZES[size], **CASES[case]}):
        incoming = output_gradients(a)
        double = cast(a, torch.float64), [None if g is None else g.double() for g in incoming]
        exact = results(TORCH, *double)
        for errors, backend in ((ours, NATIVE), (torchs, TORCH)):
            for what, result in results(backend, a, incoming).items():
                errors[what] = max(errors[what], relative_error(result, exact[what]))
    for what, error in ours.items():
        assert_not_worse_than_torch(error, torchs[what], what)
