"""The operators on a GPU as PyTorch sees them: traces, graphs, streams, devices, gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import (
    all_needed,
    assert_close,
    assert_same_bits,
    cast,
    dictionary,
    make_arguments,
    output_gradients,
)
from torch import Tensor

import fastunroll
from fastunroll import soft_threshold, unrolled_prox_gradient, use_backend
from fastunroll.ops.arguments import UnrolledArguments

M, N, K, BATCH = 40, 72, 4, 50


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to("cuda", dtype)


def parameters(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """A, W, steps and thresholds that require gradients."""
    a = dictionary(M, N, dtype).cuda()
    w = a + 0.05 * randn(M, N, seed=1, dtype=dtype)
    steps, thresholds = (torch.full((K,), v, device="cuda", dtype=dtype) for v in (0.3, 0.1))
    return tuple(t.requires_grad_() for t in (a, w, steps, thresholds))


def codes(b: Tensor, *given: Tensor) -> Tensor:
    a, w, steps, thresholds = given
    return unrolled_prox_gradient(b, a, w, step=steps, threshold=thresholds).codes


def gradients(b: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(codes(b, *given).square().sum(), given)


def assert_all_close(ours: object, expected: object, tolerance: float) -> None:
    pairs = ((ours,), (expected,)) if isinstance(ours, Tensor) else (ours, expected)
    for mine, theirs in zip(*pairs, strict=True):
        assert_close(mine.detach(), theirs.detach(), tolerance, "result")


FUNCTIONS: list[Callable[..., object]] = [codes, gradients]


def arguments(case: dict[str, object]) -> UnrolledArguments:
    a = cast(make_arguments(**case), torch.float32)
    return UnrolledArguments(*[t.cuda() if isinstance(t, Tensor) else t for t in a])


@pytest.mark.parametrize(
    "case",
    [
        {"objective": True, "iterates": True},
        {"form": "factored", "tied": True},
        {"form": "factored", "per_layer": True, "bypass": 2, "momentum": True},
    ],
    ids=["gram", "factored", "everything"],
)
def test_opcheck(case: dict[str, object]) -> None:
    a = arguments(case)
    torch.library.opcheck(torch.ops.fastunroll.unrolled.default, tuple(a))
    host = UnrolledArguments(*[t.cpu() if isinstance(t, Tensor) else t for t in a])
    grads = [None if g is None else g.cuda() for g in output_gradients(host)]
    backward = (*grads, *a, all_needed(a))
    torch.library.opcheck(torch.ops.fastunroll.unrolled_backward.default, backward)


def test_opcheck_of_the_shrinkage() -> None:
    u, t = randn(30, 40), randn(40, seed=1).abs()
    torch.library.opcheck(torch.ops.fastunroll.shrink.default, (u, t, "soft"))
    torch.library.opcheck(torch.ops.fastunroll.shrink_backward.default, (u, u, t, "soft"))


def test_agrees_with_the_cpu() -> None:
    b, given = randn(BATCH, M), parameters()
    host = [t.detach().cpu().requires_grad_() for t in given]
    assert_close(codes(b, *given).cpu(), codes(b.cpu(), *host), 1e-4, "codes")
    for ours, theirs in zip(gradients(b, *given), gradients(b.cpu(), *host), strict=True):
        assert_close(ours.cpu(), theirs, 1e-3, "gradient")


def test_gradcheck() -> None:
    b, given = randn(3, M, dtype=torch.float64), parameters(torch.float64)
    assert torch.autograd.gradcheck(codes, (b.requires_grad_(), *given), fast_mode=True)


def test_double_backward_goes_to_the_reference() -> None:
    b, given = randn(3, M, dtype=torch.float64), parameters(torch.float64)
    (first,) = torch.autograd.grad(codes(b, *given).square().sum(), given[2], create_graph=True)
    (ours,) = torch.autograd.grad(first.square().sum(), given[2])
    with use_backend("reference"):
        (first,) = torch.autograd.grad(codes(b, *given).square().sum(), given[2], create_graph=True)
        (expected,) = torch.autograd.grad(first.square().sum(), given[2])
    assert_close(ours, expected, 1e-9, "second derivative")


@pytest.mark.parametrize("trained", [False, True])
def test_compiles_without_a_break(trained: bool) -> None:
    b, given = randn(BATCH, M), parameters()
    compiled = torch.compile(codes, fullgraph=True)
    assert_close(compiled(b, *given).detach(), codes(b, *given).detach(), 1e-6, "codes")
    if trained:
        ours = torch.autograd.grad(compiled(b, *given).square().sum(), given)
        assert_all_close(ours, gradients(b, *given), 1e-5)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_cuda_graph(function: Callable[..., object]) -> None:
    """Captured once, replayed on other measurements."""
    b, given = randn(BATCH, M), parameters()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function(b, *given)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(b, *given)
    for seed in (1, 2):
        b.copy_(randn(BATCH, M, seed=seed))
        graph.replay()
        assert_all_close(result, function(b, *given), 1e-6)


def test_the_current_stream_is_used() -> None:
    """The work waits behind what is queued there: a long sleep, then the measurements."""
    given = parameters()
    expected = codes(randn(BATCH, M, seed=3), *given)
    b, stream = randn(BATCH, M, seed=4), torch.cuda.Stream()
    source = randn(BATCH, M, seed=3)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        b.copy_(source)
        ours = codes(b, *given)
    stream.synchronize()
    assert_close(ours.detach(), expected.detach(), 1e-6, "codes")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_waits_for_the_device(function: Callable[..., object]) -> None:
    b, given = randn(BATCH, M), parameters()
    function(b, *given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        function(b, *given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("batch", [3, 3000])
def test_every_run_gives_the_same_bits(batch: int) -> None:
    b, given = randn(batch, M), parameters()
    first = (codes(b, *given), *gradients(b, *given))
    for _ in range(10):
        for again, once in zip((codes(b, *given), *gradients(b, *given)), first, strict=True):
            assert_same_bits(again.detach(), once.detach(), "a run")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_another_device_than_the_current_one() -> None:
    b, given = randn(BATCH, M), parameters()
    expected = gradients(b, *given)
    other = [t.detach().to("cuda:1").requires_grad_() for t in given]
    assert torch.cuda.current_device() == 0
    for ours, theirs in zip(gradients(b.to("cuda:1"), *other), expected, strict=True):
        assert ours.device == torch.device("cuda:1")
        assert_close(ours.cpu(), theirs.cpu(), 1e-6, "gradient")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_and_out(dtype: torch.dtype) -> None:
    b, given = randn(BATCH, M).to(dtype), parameters()
    ours = codes(b, *given)
    assert ours.dtype == dtype
    assert torch.equal(ours, codes(b.float(), *given).to(dtype))
    ours.float().sum().backward()
    assert given[0].grad is not None
    shrunk = soft_threshold(b, 0.1)
    assert shrunk.dtype == dtype
    assert_close(shrunk.float(), soft_threshold(b.float(), 0.1), torch.finfo(dtype).eps, "x")


@pytest.mark.parametrize("form", ["gram", "factored"])
def test_prepared_dictionary(form: str) -> None:
    b, (a, w, steps, thresholds) = randn(BATCH, M), parameters()
    prepared = fastunroll.prepare(a, w, form=form)
    assert prepared.packed
    options = {"step": steps, "threshold": thresholds}
    ours = unrolled_prox_gradient(b, prepared, **options).codes
    expected = unrolled_prox_gradient(b, a, w, form=form, **options).codes
    assert_close(ours.detach(), expected.detach(), 1e-4, "codes")
    found = torch.autograd.grad(ours.square().sum(), (steps, thresholds))
    wanted = torch.autograd.grad(expected.square().sum(), (steps, thresholds))
    assert_all_close(found, wanted, 1e-3)


def test_tf32_where_pytorch_may_use_it() -> None:
    b, given = randn(BATCH, M), parameters()
    exact = codes(b, *given)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        rounded = codes(b, *given)
    finally:
        torch.set_float32_matmul_precision(before)
    assert not torch.equal(exact, rounded)
    assert_close(rounded.detach(), exact.detach(), 3e-2, "codes")


def test_the_build_tells_of_the_kernels() -> None:
    assert "nvcc" in str(fastunroll.build_info()["cuda"])
