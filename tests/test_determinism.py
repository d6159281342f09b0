"""Bitwise: results depend on the sample alone, never on its batch, the threads or the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers import all_needed, assert_same_bits, dictionary, make_arguments, output_gradients
from torch import Tensor

import fastunroll
from fastunroll import prox_gradient_step, soft_threshold
from fastunroll import unrolled_prox_gradient as unroll
from fastunroll.ops import cpu
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
FORMS = pytest.mark.parametrize("form", ["gram", "factored"])
CASES = {
    "sparse": {"level": 0.4},
    "dense": {"level": 1e-3},
    "rule": {"step": "rule", "level": 0.2},
    "momentum": {"momentum": True, "initial": True, "previous": True, "level": 0.2},
    "per sample": {"step": "full", "threshold": "sample", "level": 0.2},
    "per atom": {"step": "atom", "threshold": "atom", "per_layer": True, "level": 0.2},
    "smooth": {"prox": "smooth", "threshold": "atom", "level": 0.2},
    "firm": {"prox": "firm", "level": 0.2},
    "support selection": {"bypass": 3, "level": 0.2},
}
SIZE = {"m": 60, "n": 150, "layers": 3, "objective": True, "iterates": True}


@pytest.fixture(autouse=True)
def _threads_are_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def problem(case: str, batch: int = 200, **options: object) -> UnrolledArguments:
    return make_arguments(**{**SIZE, **CASES[case], "batch": batch, **options})


def samples(a: UnrolledArguments, first: int, count: int) -> UnrolledArguments:
    """The problem of ``count`` samples from ``first`` on."""
    rows = slice(first, first + count)

    def per_layer(t: Tensor | None) -> Tensor | None:
        return t if t is None or t.shape[1] == 1 else t[:, rows]

    return a._replace(
        linear=per_layer(a.linear),
        measurements=None if a.measurements is None else a.measurements[rows],
        initial=None if a.initial is None else a.initial[rows],
        previous=None if a.previous is None else a.previous[rows],
        step=per_layer(a.step),
        threshold=per_layer(a.threshold),
    )


def gradients(a: UnrolledArguments) -> dict[str, Tensor]:
    found = cpu.unrolled_backward(*output_gradients(a), *a, all_needed(a))
    return dict(zip(a._fields[:N_DIFFERENTIABLE], found, strict=True))


@DTYPES
@FORMS
@pytest.mark.parametrize("case", CASES)
def test_forward_of_a_sample_is_independent_of_its_batch(
    case: str, form: str, dtype: torch.dtype
) -> None:
    a = problem(case, form=form, dtype=dtype)
    codes, objective, iterates = cpu.unrolled(*a)
    for batch in (1, 3, 64, 65):
        for first in (0, 70, 200 - batch):
            part = cpu.unrolled(*samples(a, first, batch))
            rows = slice(first, first + batch)
            assert_same_bits(part[0], codes[rows], f"codes of {batch} samples")
            assert_same_bits(part[1], objective[:, rows], f"objective of {batch} samples")
            assert_same_bits(part[2], iterates[:, rows], f"iterates of {batch} samples")


@DTYPES
@pytest.mark.parametrize("kind", ["dictionary", "prepared"])
@FORMS
def test_public_call_on_a_sample_is_independent_of_its_batch(
    form: str, kind: str, dtype: torch.dtype
) -> None:
    a = dictionary(60, 150, dtype)
    b = torch.randn(200, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = b.to(dtype)
    given = fastunroll.prepare(a, form=form) if kind == "prepared" else a
    options = {"step": 0.3, "threshold": 0.1, "n_layers": 4, "form": form}
    together = unroll(b, given, **options).codes
    for batch in (1, 3, 64, 65):
        part = unroll(b[70 : 70 + batch], given, **options).codes
        assert_same_bits(part, together[70 : 70 + batch], f"codes of {batch} samples")


@DTYPES
@FORMS
@pytest.mark.parametrize("case", CASES)
def test_forward_is_independent_of_threads_and_run(
    case: str, form: str, dtype: torch.dtype
) -> None:
    a = problem(case, form=form, dtype=dtype)
    results = []
    for threads in (1, 2, 4, 4):
        torch.set_num_threads(threads)
        results.append(cpu.unrolled(*a))
    for result in results[1:]:
        for ours, expected in zip(result, results[0], strict=True):
            assert_same_bits(ours, expected, "result")


@DTYPES
@FORMS
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_independent_of_threads_and_run(
    case: str, form: str, dtype: torch.dtype
) -> None:
    a = problem(case, form=form, dtype=dtype)
    results = []
    for threads in (1, 2, 4, 4):
        torch.set_num_threads(threads)
        results.append(gradients(a))
    for result in results[1:]:
        for name, ours in result.items():
            assert_same_bits(ours, results[0][name], f"gradient of {name}")


@DTYPES
def test_soft_threshold_is_independent_of_threads(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    u, grad = torch.randn(2, 700, 500, dtype=dtype, generator=g)
    for shape in ((), (500,), (700, 1)):
        results = []
        for threads in (1, 2, 4, 4):
            torch.set_num_threads(threads)
            t = torch.full(shape, 0.4, dtype=dtype, requires_grad=True)
            v = u.clone().requires_grad_()
            out = soft_threshold(v, t)
            results.append((out.detach(), *torch.autograd.grad(out, (v, t), grad)))
        for result in results[1:]:
            for ours, expected in zip(result, results[0], strict=True):
                assert_same_bits(ours, expected, "soft_threshold")


# A tile of samples takes the dense product when more than half of its entries are non-zero. With a
# threshold per sample the neighbours of one sample push it over that line or back.
@DTYPES
@FORMS
@pytest.mark.parametrize("density", [0.05, 0.45, 0.55, 0.95])
@pytest.mark.parametrize("case", ["sparse", "rule", "momentum"])
def test_sparse_and_dense_path_agree(
    case: str, density: float, form: str, dtype: torch.dtype
) -> None:
    a = problem(case, batch=8, form=form, dtype=dtype, threshold="sample", initial=True)
    u = torch.randn(8, 150, dtype=dtype, generator=torch.Generator().manual_seed(2))
    level = u[:1].abs().quantile(1 - density)
    start = soft_threshold(u, level)
    filled = {}
    for kind, threshold, neighbours in (("sparse", 10.0, 0 * u), ("dense", 1e-6, u)):
        others = a.threshold.clone()
        others[:, 1:] = threshold
        initial = torch.cat([start[:1], neighbours[1:]])
        whole = a._replace(threshold=others, initial=initial)
        share = float((cpu.unrolled(*whole)[2] != 0).double().mean())
        assert share < 0.5 if kind == "sparse" else share > 0.5
        rows = gradients(whole)
        filled[kind] = (
            *(result[..., :1, :] for result in (cpu.unrolled(*whole)[i] for i in (0, 2))),
            rows["initial"][:1],
            rows["threshold"][:, :1],
            (rows["linear"] if form == "gram" else rows["measurements"])[..., :1, :],
        )
    for sparse, dense in zip(filled["sparse"], filled["dense"], strict=True):
        assert_same_bits(sparse, dense, "result or gradient of the first sample")


@DTYPES
@pytest.mark.parametrize("level", [1e-3, 0.1, 0.4])
@pytest.mark.parametrize("kind", ["dictionary", "prepared"])
@FORMS
def test_all_layers_in_one_call_are_single_layers(
    form: str, kind: str, level: float, dtype: torch.dtype
) -> None:
    a = dictionary(40, 90, dtype)
    g = torch.Generator().manual_seed(0)
    b = torch.randn(20, 40, dtype=torch.float64, generator=g).to(dtype)
    given = fastunroll.prepare(a, form=form) if kind == "prepared" else a
    step = 0.2 + 0.1 * torch.rand(5, dtype=dtype, generator=g)
    threshold = level * (1 + torch.rand(5, 90, dtype=dtype, generator=g))
    iterates = unroll(b, given, step=step, threshold=threshold, form=form, iterates=True).iterates
    x = torch.zeros(20, 90, dtype=dtype)
    for k in range(5):
        x = prox_gradient_step(x, b, given, step=step[k], threshold=threshold[k], form=form)
        assert_same_bits(x, iterates[k + 1], f"layer {k + 1}")
