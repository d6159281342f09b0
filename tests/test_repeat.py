"""Inference calls that repeat take a shorter way; nobody may notice but by the time it takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import assert_close, dictionary
from torch import Tensor

from fastunroll import prepare, unrolled_prox_gradient, use_backend

M, N, K = 9, 15, 3


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def expected(b: Tensor, a: Tensor, step: Tensor, threshold: Tensor) -> Tensor:
    with use_backend("reference"):
        return unrolled_prox_gradient(b, a, step=step, threshold=threshold).codes


def parameters() -> tuple[Tensor, Tensor, Tensor]:
    return dictionary(M, N), torch.full((K,), 0.4).double(), randn(K).abs()


def test_see_parameters_that_change_in_place() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)
    for _ in range(4):
        b = randn(4, M)
        codes = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold).codes
        assert_close(codes, expected(b, a, step, threshold), 1e-12, "codes")
        threshold.mul_(0.5)
        step.data.mul_(0.9)


def test_see_another_storage() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)
    for _ in range(4):
        b = randn(4, M)
        codes = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold).codes
        assert_close(codes, expected(b, a, step, threshold), 1e-12, "codes")
        threshold.data = threshold * 0.5


def test_see_strided_parameters_that_change_in_place() -> None:
    a, step, threshold = parameters()
    wide = threshold.repeat_interleave(2)
    prepared = prepare(a)
    for _ in range(4):
        b = randn(4, M)
        codes = unrolled_prox_gradient(b, prepared, step=step, threshold=wide[::2]).codes
        assert_close(codes, expected(b, a, step, wide[::2]), 1e-12, "codes")
        wide.mul_(0.5)


def test_take_other_batches_and_still_check_them() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)

    def run(b: Tensor) -> Tensor:
        return unrolled_prox_gradient(b, prepared, step=step, threshold=threshold).codes

    for batch in (4, 4, 4, 1, 70):
        b = randn(batch, M)
        assert_close(run(b), expected(b, a, step, threshold), 1e-12, "codes")
        assert_close(run(b.mT.contiguous().mT), run(b), 0.0, "codes of strided rows")
        assert_close(run(b[0]), run(b)[0], 0.0, "codes of one row")
    assert run(randn(0, M)).shape == (0, N)
    with pytest.raises(ValueError, match="measurements must have 9 columns"):
        run(randn(4, M + 1))
    with pytest.raises(TypeError, match="measurements has dtype"):
        run(randn(4, M).float())
    threshold[1] = -1.0
    with pytest.raises(ValueError, match="threshold must be finite and not negative"):
        run(randn(4, M))


def test_give_gradients_when_they_are_needed() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)
    b = randn(4, M)
    for _ in range(3):
        unrolled_prox_gradient(b, prepared, step=step, threshold=threshold)
    threshold.requires_grad_()
    codes = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold).codes
    (grad,) = torch.autograd.grad(codes.sum(), threshold)
    assert grad.abs().sum() > 0
    b.requires_grad_()
    codes = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold).codes
    (grad,) = torch.autograd.grad(codes.sum(), b)
    assert grad.abs().sum() > 0


def test_give_options_back_their_meaning() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)
    b = randn(4, M)
    for _ in range(3):
        plain = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold)
    assert plain.iterates is None
    full = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold, iterates=True)
    assert full.iterates is not None
    hard = unrolled_prox_gradient(b, prepared, step=step, threshold=threshold, prox="hard")
    assert not torch.equal(hard.codes, plain.codes)
    counts = [0, 0, 0]
    for count in (0, 0, 0, N):
        counts[-1] = count
        codes = unrolled_prox_gradient(
            b, prepared, step=step, threshold=threshold, bypass=counts
        ).codes
    assert not torch.equal(codes, plain.codes)


def test_survive_calls_that_go_another_way() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)
    b = randn(4, M)
    for _ in range(2):
        unrolled_prox_gradient(b, prepared, step=step, threshold=threshold)
    kept = prepared.last_call._last.bound
    assert kept is not None
    with use_backend("reference"):
        unrolled_prox_gradient(b, prepared, step=step, threshold=threshold)
    unrolled_prox_gradient(b[::2], prepared, step=step, threshold=threshold)
    assert prepared.last_call._last.bound is kept
    assert_close(
        unrolled_prox_gradient(b[0], prepared, step=step, threshold=threshold).codes,
        expected(b, a, step, threshold)[0],
        1e-12,
        "codes of one row",
    )


def test_work_from_several_threads() -> None:
    a, step, threshold = parameters()
    prepared = prepare(a)
    calls = [
        (randn(batch, M), threshold * factor) for batch in (1, 5) for factor in (0.5, 1.0, 2.0)
    ]
    wanted = [expected(b, a, step, t) for b, t in calls]

    def run(i: int) -> None:
        for _ in range(50):
            b, t = calls[i % len(calls)]
            codes = unrolled_prox_gradient(b, prepared, step=step, threshold=t).codes
            assert_close(codes, wanted[i % len(calls)], 1e-12, "codes")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(24)))
