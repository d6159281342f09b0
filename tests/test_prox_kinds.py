"""Smooth, firm and SCAD shrinkage: accuracy, formulas, derivatives, every instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from helpers import assert_close, assert_same_bits, dictionary
from torch import Tensor

import fastunroll
from fastunroll import prox_gradient_step, smooth_soft_threshold
from fastunroll import unrolled_prox_gradient as unroll
from fastunroll.ops import reference

B, M, N, K = 5, 12, 20, 3
NAN, INF = float("nan"), float("inf")
A = dictionary(M, N)
SHAPES = {"smooth": None, "firm": 2.5, "scad": 3.7}
KINDS = pytest.mark.parametrize("kind", SHAPES)
FORMS = pytest.mark.parametrize("form", ["gram", "factored"])
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def randn(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- Units in the last place of the smooth soft threshold


def exact_smooth(u: float, t: float) -> tuple[mpmath.mpf, ...]:
    """s, ds/du, ds/dt, d2s/du2 and d2s/du dt, from forms of |u| without cancellation."""
    a, limit, sign = abs(mpmath.mpf(u)), mpmath.mpf(t), -1 if u < 0 else 1
    p, q = 1 / (1 + mpmath.exp(limit - a)), 1 / (1 + mpmath.exp(a + limit))
    growth = 2 * mpmath.sinh(a) * mpmath.exp(-limit) * (1 - q)
    square = (mpmath.cosh(a) + mpmath.cosh(limit)) ** 2
    return (
        sign * mpmath.log1p(growth),
        p + q,
        sign * mpmath.expm1(-2 * a) * p * (1 - q),
        sign * mpmath.sinh(a) * mpmath.sinh(limit) / square,
        -(1 + mpmath.cosh(a) * mpmath.cosh(limit)) / square,
    )


def arguments_in_all_ranges() -> tuple[Array, Array]:
    """u in [-1e4, 1e4], from 1e-300 on, near the threshold and at it; t in [0, 20]."""
    g = np.random.default_rng(0)
    t = g.uniform(0, 20, 1500)
    t[::17] = 0
    t[1::17] = 10 ** g.uniform(-12, 1, len(t[1::17]))
    u = np.concatenate(
        [
            10 ** g.uniform(-300, 4, 300),
            g.uniform(0, 1e4, 300),
            10 ** g.uniform(-3, 1.5, 500),
            np.abs(t[1100:1400] + g.normal(size=300)),
            t[1400:],
        ]
    )
    u[::91] = 0
    return u * g.choice([-1, 1], len(u)), t


def worst_errors(dtype: torch.dtype) -> list[float]:
    """Largest errors of value, first and second derivatives, in units in the last place."""
    u, t = (torch.tensor(a, dtype=dtype, requires_grad=True) for a in arguments_in_all_ranges())
    y = smooth_soft_threshold(u, t)
    slopes = torch.autograd.grad(y.sum(), (u, t), create_graph=True)
    found = [x.detach() for x in (y, *slopes)] + list(torch.autograd.grad(slopes[0].sum(), (u, t)))
    plain = torch.autograd.grad(smooth_soft_threshold(u, t).sum(), (u, t))
    for one, other in zip(plain, slopes, strict=True):
        assert_same_bits(one, other.detach(), "slope with and without double backward")
    exact = [exact_smooth(a, b) for a, b in zip(u.tolist(), t.tolist(), strict=True)]
    scalar = np.float64 if dtype == torch.float64 else np.float32
    tiny = torch.finfo(dtype).tiny
    worst = []
    for ours, expected in zip(found, zip(*exact, strict=True), strict=True):
        unit = [float(np.spacing(scalar(max(abs(e), tiny)))) for e in expected]
        errors = [
            float(abs(mpmath.mpf(o) - e)) / one
            for o, e, one in zip(ours.tolist(), expected, unit, strict=True)
        ]
        worst.append(max(errors))
    return worst


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_smooth_soft_threshold_is_right_to_four_units_in_the_last_place(dtype: torch.dtype) -> None:
    with mpmath.workprec(300):
        assert max(worst_errors(dtype)) <= 4


OTHER_INSTRUCTION_SETS = """
import itertools, mpmath, torch
from test_prox_kinds import *
torch.set_num_threads(1)
with mpmath.workprec(300):
    assert max(worst_errors(torch.float64)) <= 4
for dtype, n in itertools.product((torch.float32, torch.float64), (1, 7, 64, 133)):
    check_special_values(dtype, n)
print(fastunroll.build_info()["isa"])
"""


@pytest.mark.parametrize("isa", fastunroll.build_info()["supported_isas"])
def test_every_instruction_set(isa: str) -> None:
    environment = {**os.environ, "FASTUNROLL_ISA": isa}
    command = [sys.executable, "-c", OTHER_INSTRUCTION_SETS]
    here = Path(__file__).parent
    done = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]


def check_special_values(dtype: torch.dtype, n: int) -> None:
    """Values that overflow a plain formula, and NaN in every lane."""
    largest = torch.finfo(dtype).max
    for u, t, expected in (
        (largest, 1.0, largest),
        (INF, 1.0, INF),
        (1e4, 0.5, 1e4 - 0.5),
        (3.0, 1e4, 0.0),
        (0.0, 2.0, 0.0),
        (0.0, 1e4, 0.0),
        (1e30, 1e30, float(np.log(2))),
        (0.75, 0.0, 0.75),
    ):
        ours = smooth_soft_threshold(torch.full((n,), u, dtype=dtype), t)
        tolerance = 1e-6 if dtype == torch.float32 else 1e-14
        assert torch.allclose(ours, torch.tensor(expected, dtype=dtype), tolerance, 1e-30)
        assert torch.equal(smooth_soft_threshold(torch.full((n,), -u, dtype=dtype), t), -ours)
    for position in range(n):
        u = torch.zeros(2, n, dtype=dtype)
        u[1, position] = NAN
        assert torch.equal(smooth_soft_threshold(u, 0.3).isnan(), u.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 8, 37])
def test_smooth_soft_threshold_of_special_values(n: int, dtype: torch.dtype) -> None:
    check_special_values(dtype, n)


# --- The bare shrinkage


@pytest.mark.parametrize("shape", [(), (1,), (N,), (B, 1), (1, N)], ids=str)
def test_gradients_of_smooth_soft_threshold(shape: tuple[int, ...]) -> None:
    u, t = (3 * randn(B, N)).requires_grad_(), randn(*shape).abs().requires_grad_()
    assert torch.autograd.gradcheck(smooth_soft_threshold, (u, t))
    assert torch.autograd.gradgradcheck(smooth_soft_threshold, (u, t))


def test_higher_derivatives_of_smooth_soft_threshold() -> None:
    def derivatives(shrink: Callable[[Tensor, Tensor], Tensor], u: Tensor) -> list[Tensor]:
        u, t = u.clone().requires_grad_(), torch.tensor(1.0, dtype=u.dtype, requires_grad=True)
        found = [shrink(u, t)]
        for _ in range(3):
            found.append(torch.autograd.grad(found[-1].sum(), u, create_graph=True)[0])
        return [*found[2:], *torch.autograd.grad(found[2].sum(), t)]

    u = torch.tensor([-2.0, -1.0, -0.3, 0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    expected = derivatives(reference.smooth_soft_threshold, u)
    for one, other in zip(derivatives(smooth_soft_threshold, u), expected, strict=True):
        assert_close(one.detach(), other.detach(), 1e-13, "derivative")
    far = torch.tensor([-INF, -1e300, 1e300, INF, NAN], dtype=torch.float64)
    second = derivatives(smooth_soft_threshold, far)[0]
    assert not second[:4].any()
    assert bool(second[4].isnan())


def test_smooth_soft_threshold_is_independent_of_threads_and_rows() -> None:
    u, grad = randn(700, 130), randn(700, 130, seed=4)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        v, t = u.clone().requires_grad_(), torch.tensor(0.7, dtype=u.dtype, requires_grad=True)
        y = smooth_soft_threshold(v, t)
        results.append((y.detach(), *torch.autograd.grad(y, (v, t), grad)))
    torch.set_num_threads(before)
    for result in results[1:]:
        for ours, expected in zip(result, results[0], strict=True):
            assert_same_bits(ours, expected, "result")
    assert_same_bits(smooth_soft_threshold(u[33], 0.7), results[0][0][33], "one row")


# --- The layers, against the formulas


def smooth(u: Array, t: Array | float, _: object) -> Array:
    return np.logaddexp(0, u - t) - np.logaddexp(0, -u - t)


def firm(u: Array, t: Array | float, gamma: Array | float) -> Array:
    a = np.abs(u)
    pieces = [np.zeros_like(a), gamma * (a - t) / (gamma - 1), a]
    return np.sign(u) * np.select([a <= t, a <= gamma * t, a > gamma * t], pieces)


def scad(u: Array, t: Array | float, shape: Array | float) -> Array:
    size = np.abs(u)
    line = ((shape - 1) * size - shape * t) / (shape - 2)
    pieces = [np.zeros_like(size), size - t, line, size]
    conditions = [size <= t, size <= 2 * t, size <= shape * t, size > shape * t]
    return np.sign(u) * np.select(conditions, pieces)


FORMULAS: dict[str, Callable[..., Array]] = {"smooth": smooth, "firm": firm, "scad": scad}


@FORMS
@pytest.mark.parametrize("threshold", ["layer", "atom"])
@KINDS
def test_layers_are_their_formula(kind: str, threshold: str, form: str) -> None:
    b, t = 3 * randn(B, M), 0.3 * randn(K, N if threshold == "atom" else 1).abs() + 0.4
    shapes = None if SHAPES[kind] is None else SHAPES[kind] + randn(K).abs()
    options = {"prox": kind, "prox_shape": shapes, "form": form, "iterates": True}
    given = t if threshold == "atom" else t[:, 0]
    ours = unroll(b, A, step=0.4, threshold=given, **options).iterates
    a, x = A.numpy(), np.zeros((B, N))
    for k in range(K):
        u = x - 0.4 * (x @ a.T - b.numpy()) @ a
        x = FORMULAS[kind](u, t[k].numpy(), None if shapes is None else float(shapes[k]))
        assert_close(ours[k + 1], torch.from_numpy(x), 1e-13, f"layer {k + 1}")
    density = float((ours[1:] != 0).double().mean())
    assert density == 1 if kind == "smooth" else 0.1 < density < 0.9


@pytest.mark.parametrize("kind", ["firm", "scad"])
def test_pieces_of_firm_and_scad_shrinkage(kind: str) -> None:
    t, shape = 0.5, SHAPES[kind]
    u = torch.cat([torch.linspace(-3, 3, 600).double(), torch.tensor([-t, t]).double()])
    u = u[:, None].requires_grad_()
    limit = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    bend = torch.tensor(shape, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    options = {"step": 1.0, "n_layers": 1, "form": "factored", "prox": kind}
    x = unroll(u, one, threshold=limit, prox_shape=bend, **options).codes
    v = u.detach().numpy()
    assert_close(x.detach(), torch.from_numpy(FORMULAS[kind](v, t, shape)), 1e-15, "codes")
    assert torch.equal(x[abs(v) > shape * t + 1e-9], u[abs(v) > shape * t + 1e-9])
    assert not x[abs(v) <= t].any()
    expected = reference.prox(u, limit, kind, shape=bend)
    weight = randn(*x.shape)
    ours, theirs = (
        torch.autograd.grad((weight * y).sum(), (u, limit, bend)) for y in (x, expected)
    )
    for one_of, other in zip(ours, theirs, strict=True):
        assert_close(one_of, other, 1e-12, "gradient")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@KINDS
def test_zero_threshold_is_the_identity(kind: str, dtype: torch.dtype) -> None:
    b = randn(B, N).to(dtype)
    eye = torch.eye(N, dtype=dtype)
    x = prox_gradient_step(
        0 * b, b, eye, step=1.0, threshold=0.0, prox=kind, prox_shape=SHAPES[kind]
    )
    assert torch.equal(x, b)


@FORMS
def test_large_shape_is_the_soft_threshold(form: str) -> None:
    b, options = randn(B, M), {"step": 0.4, "threshold": 0.1, "n_layers": K, "form": form}
    soft = unroll(b, A, **options).codes
    for kind in ("firm", "scad"):
        ours = unroll(b, A, **options, prox=kind, prox_shape=1e12).codes
        assert_close(ours, soft, 1e-10, kind)


@FORMS
@KINDS
def test_nan_stays_in_its_sample(kind: str, form: str) -> None:
    b = randn(B, M)
    options = {"step": 0.2, "threshold": 0.1, "n_layers": K, "form": form, "prox": kind}
    options["prox_shape"] = SHAPES[kind]
    clean = unroll(b, A, **options).codes
    b[2, 5] = NAN
    x = unroll(b, A, **options).codes
    assert x[2].isnan().all()
    assert_close(x[[0, 1, 3, 4]], clean[[0, 1, 3, 4]], 1e-12, "other samples")


@FORMS
@KINDS
def test_training_gradients_equal_the_reference(kind: str, form: str) -> None:
    b, shapes = 3 * randn(B, M), SHAPES[kind]

    def run() -> tuple[Tensor, ...]:
        a, t = A.clone().requires_grad_(), torch.full((K,), 0.15).double().requires_grad_()
        leaves = [a, t]
        shape = None
        if shapes is not None:
            shape = torch.tensor(shapes, dtype=torch.float64, requires_grad=True)
            leaves.append(shape)
        options = {"step": 0.3, "threshold": t, "prox": kind, "prox_shape": shape, "form": form}
        x = unroll(b, a, **options).codes
        return torch.autograd.grad(x.square().sum(), leaves)

    ours = run()
    with fastunroll.use_backend("reference"):
        expected = run()
    for one, other in zip(ours, expected, strict=True):
        assert one.abs().max() > 0
        assert_close(one, other, 1e-9, "gradient")


def test_repeated_calls_see_a_shape_that_changes() -> None:
    b, shape = 3 * randn(B, M), torch.full((K,), 2.0, dtype=torch.float64)
    prepared = fastunroll.prepare(A)
    options = {"step": 0.4, "threshold": 0.1, "prox": "firm"}
    for _ in range(4):
        ours = unroll(b, prepared, **options, prox_shape=shape).codes
        assert_close(ours, unroll(b, A, **options, prox_shape=shape).codes, 1e-12, "codes")
        shape.mul_(1.5)
    assert prepared.last_call._last.bound is not None
    shape[1] = 1.0
    with pytest.raises(ValueError, match="prox_shape must be finite and greater than 1"):
        unroll(b, prepared, **options, prox_shape=shape)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@KINDS
def test_compiled_layers_equal_eager(kind: str) -> None:
    b, t = 3 * randn(B, M), torch.full((K,), 0.1, dtype=torch.float64, requires_grad=True)
    options = {"step": 0.3, "prox": kind, "prox_shape": SHAPES[kind]}

    def run() -> Tensor:
        return unroll(b, A, threshold=t, **options).codes.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(compiled().detach(), run().detach(), 1e-12, "value")
    (ours,), (expected,) = (torch.autograd.grad(f(), t) for f in (compiled, run))
    assert_close(ours, expected, 1e-12, "gradient")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.func
@KINDS
def test_second_derivatives_by_torch_func(kind: str) -> None:
    b = 3 * randn(2, M)
    options = {"step": 0.3, "prox": kind, "prox_shape": SHAPES[kind]}

    def loss(t: Tensor) -> Tensor:
        return unroll(b, A, threshold=t, **options).codes.square().sum()

    t = torch.full((K,), 0.1, dtype=torch.float64)
    with fastunroll.use_backend("reference"):
        hessian = torch.func.hessian(loss)(t)
    assert_close(torch.autograd.functional.hessian(loss, t), hessian, 1e-10, "Hessian")
