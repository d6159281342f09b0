"""Every kernel once on small problems; also run under compute-sanitizer."""

from __future__ import annotations

import pytest
import torch
from helpers import all_needed, assert_close, cast, make_arguments, output_gradients
from test_unrolled import CASES
from torch import Tensor

from fastunroll.backend import use_precision
from fastunroll.ops import reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

PROBLEMS = {
    "few samples": {"batch": 3, "m": 12, "n": 20, "layers": 3},
    "tiles": {"batch": 300, "m": 37, "n": 133, "layers": 3},
    "wide": {"batch": 9, "m": 300, "n": 2500, "layers": 2},
}
TOLERANCES = {"float32": 1e-4, "tf32": 2e-2, "mixed": 5e-2}


def on_gpu(a: UnrolledArguments, dtype: torch.dtype) -> UnrolledArguments:
    moved = [t.cuda() if isinstance(t, Tensor) else t for t in cast(a, dtype)]
    return UnrolledArguments(*moved)


def check(a: UnrolledArguments, dtype: torch.dtype, tolerance: float) -> None:
    """Compare results and every gradient of the kernels with the reference in float64."""
    ops, gpu = torch.ops.fastunroll, on_gpu(a, dtype)
    names = ("codes", "objective", "iterates")
    for name, ours, expected in zip(
        names, ops.unrolled.default(*gpu), reference.unrolled(a), strict=True
    ):
        assert_close(ours.cpu(), expected, tolerance, name)
    grads, needs = output_gradients(a), all_needed(a)
    incoming = [None if g is None else g.to("cuda", dtype) for g in grads]
    ours_all = ops.unrolled_backward.default(*incoming, *gpu, needs)
    expected_all = reference.unrolled_backward(*grads, a, needs)
    for name, ours, expected in zip(
        a._fields[:N_DIFFERENTIABLE], ours_all, expected_all, strict=True
    ):
        assert_close(ours.cpu(), expected, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("size", PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_float64(case: str, size: str) -> None:
    check(make_arguments(**CASES[case], **PROBLEMS[size], level=0.3), torch.float64, 1e-9)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("size", PROBLEMS)
@pytest.mark.parametrize("case", ["gram", "gram, momentum, rule", "factored", "factored, W = A"])
def test_float32_in_every_precision(case: str, size: str, precision: str) -> None:
    """Thresholds of nearly 0, so that rounding moves no entry over its threshold."""
    a = make_arguments(**CASES[case], **PROBLEMS[size], level=1e-6)
    with use_precision(precision):
        check(a, torch.float32, TOLERANCES[precision])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prox", ["soft", "nonnegative", "smooth"])
@pytest.mark.parametrize("kind", [(), (133,), (70, 1)], ids=str)
def test_shrinkage(kind: tuple[int, ...], prox: str, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    u, grad = (torch.randn(70, 133, generator=g).to(dtype) for _ in range(2))
    threshold = torch.rand(kind, generator=g).to(dtype)
    ops, tolerance = torch.ops.fastunroll, 4 * torch.finfo(dtype).eps
    double = u.double(), threshold.double(), prox
    ours = ops.shrink.default(u.cuda(), threshold.cuda(), prox)
    assert_close(ours.cpu(), reference.shrink(*double), tolerance, "value")
    found = ops.shrink_backward.default(grad.cuda(), u.cuda(), threshold.cuda(), prox)
    for mine, theirs in zip(found, reference.shrink_backward(grad.double(), *double), strict=True):
        assert_close(mine.cpu(), theirs, 2 * tolerance, "gradient")
