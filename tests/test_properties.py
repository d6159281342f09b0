"""Random problems: kernels and reference agree to 1e-9 for any shape, layout and density."""

from __future__ import annotations

import torch
from helpers import assert_close, dictionary, make_arguments
from hypothesis import given, settings
from hypothesis import strategies as st
from test_unrolled import check
from torch import Tensor

from fastunroll import soft_threshold
from fastunroll.ops import cpu, reference
from fastunroll.ops.arguments import PROX_KINDS, UnrolledArguments

few = settings(max_examples=60, deadline=None, derandomize=True)
sizes = st.fixed_dictionaries(
    {
        "batch": st.sampled_from([1, 2, 7, 31, 33, 65]),
        "m": st.integers(1, 40),
        "n": st.one_of(st.just(1), st.integers(1, 80), st.sampled_from([32, 63, 64, 65, 129])),
        "layers": st.integers(1, 4),
        "seed": st.integers(0, 1000),
    }
)
parts = st.sampled_from(["layer", "atom", "sample", "full"])
options = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["gram", "factored"]),
        "step": st.one_of(parts, st.just("rule")),
        "threshold": parts,
        "level": st.sampled_from([0.0, 1e-3, 0.03, 0.1, 0.3, 1.0, 100.0]),  # 100 % to 0 % non-zero
        "prox": st.sampled_from(PROX_KINDS),
        "bypass": st.sampled_from([0, 1, 5, 1000]),
        "per_layer": st.booleans(),
        "tied": st.booleans(),
        "momentum": st.booleans(),
        "heavy_ball": st.booleans(),
        "initial": st.booleans(),
        "previous": st.booleans(),
        "objective": st.booleans(),
        "iterates": st.booleans(),
    }
)


def problem(size: dict[str, int], option: dict[str, object]) -> UnrolledArguments:
    """Random arguments; a single layer's momentum acts on nothing without ``previous``."""
    previous = size["layers"] == 1 or option["previous"]
    bypass = option["bypass"] if option["prox"] in ("soft", "nonnegative", "hard") else 0
    return make_arguments(**{**size, **option, "previous": previous, "bypass": bypass})


def with_empty_samples(a: UnrolledArguments, every: int) -> UnrolledArguments:
    """Every so-many-th sample has measurements, and so far codes, of zeros."""

    def emptied(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        t = t.clone()
        t[..., ::every, :] = 0
        return t

    return a._replace(
        linear=emptied(a.linear),
        measurements=emptied(a.measurements),
        initial=emptied(a.initial),
        previous=emptied(a.previous),
    )


def strided(t: Tensor) -> Tensor:
    """The same values, every axis with a gap and the last two axes in the other order."""
    wide = t.new_full([2 * size for size in t.shape], float("nan"))
    wide = wide.mT.contiguous().mT if t.dim() > 1 else wide
    view = wide[(slice(1, None, 2),) * t.dim()]
    view.copy_(t)
    return view


@few
@given(size=sizes, option=options, empty=st.sampled_from([1, 2, 1000]))
def test_recursion_agrees_with_the_reference(
    size: dict[str, int], option: dict[str, object], empty: int
) -> None:
    check(with_empty_samples(problem(size, option), empty), 1e-9)


@few
@given(size=sizes, option=options)
def test_any_strides(size: dict[str, int], option: dict[str, object]) -> None:
    a = problem(size, option)
    moved = UnrolledArguments(*[strided(t) if isinstance(t, Tensor) else t for t in a])
    for ours, expected in zip(cpu.unrolled(*moved)[:3], cpu.unrolled(*a)[:3], strict=True):
        assert torch.equal(ours, expected)
    check(moved, 1e-9)


@few
@given(
    rows=st.integers(1, 130),
    n=st.integers(1, 300),
    shape=st.sampled_from(["scalar", "atom", "sample"]),
    level=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    nonnegative=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_soft_threshold_agrees_with_the_reference(
    rows: int, n: int, shape: str, level: float, nonnegative: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    u, grad = torch.randn(2, rows, n, dtype=torch.float64, generator=g)
    size = {"scalar": (), "atom": (n,), "sample": (rows, 1)}[shape]
    t = (level * torch.rand(size, dtype=torch.float64, generator=g)).requires_grad_()
    u.requires_grad_()
    out = soft_threshold(u, t, nonnegative=nonnegative)
    expected = reference.soft_threshold(u, t, nonnegative)
    assert torch.equal(out, expected)
    for ours, theirs in zip(
        torch.autograd.grad(out, (u, t), grad),
        torch.autograd.grad(expected, (u, t), grad),
        strict=True,
    ):
        assert_close(ours, theirs, 1e-12, "gradient")


@few
@given(size=sizes, level=st.sampled_from([0.01, 0.1, 0.5]))
def test_a_fixed_point_stays(size: dict[str, int], level: float) -> None:
    """x = S(x + A^T r) with A^T r = level sign(x) is a LASSO solution: the layer must keep it."""
    m, n = size["m"], size["n"]
    q, _ = torch.linalg.qr(dictionary(max(m, n), min(m, n), seed=size["seed"]))  # A^T A = I
    x = torch.randn(size["batch"], q.shape[1], dtype=torch.float64)
    x = soft_threshold(x, 0.5)
    b = (x + level * x.sign()) @ q.mT
    a = UnrolledArguments(
        linear=None,
        gram=None,
        dictionary=q,
        weight=None,
        measurements=b,
        initial=x,
        step=torch.ones(size["layers"], 1, 1, dtype=torch.float64),
        threshold=torch.full((size["layers"], 1, 1), level, dtype=torch.float64),
        rule_weight=None,
        rule_bias=None,
        momentum=None,
    )
    assert_close(cpu.unrolled(*a)[0], x, 1e-12, "fixed point")
