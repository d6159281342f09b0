"""Problems and comparisons shared by the tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastunroll.ops import reference
from fastunroll.ops.arguments import LEAST_SHAPES, N_DIFFERENTIABLE, UnrolledArguments


def dictionary(m: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Random dictionary with unit columns: (m, n)."""
    a = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (a / a.norm(dim=0)).to(dtype)


def make_arguments(
    *,
    form: str = "gram",
    batch: int = 5,
    m: int = 12,
    n: int = 20,
    layers: int = 4,
    per_layer: bool = False,
    tied: bool = False,
    step: str = "layer",
    threshold: str = "layer",
    level: float = 0.1,
    momentum: bool = False,
    initial: bool = False,
    previous: bool = False,
    objective: bool = False,
    iterates: bool = False,
    bypass: int = 0,
    prox: str = "soft",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **options: object,
) -> UnrolledArguments:
    """Arguments of the recursion with every tensor random; ``level`` sets the density.

    ``form`` is gram, factored, or learned gram, where c = b W and G is none of A and W.
    ``step`` and ``threshold`` are one of layer, atom, sample, full; ``step`` may be rule.
    """
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype)

    def parameter(kind: str, scale: float) -> Tensor:
        shape = (
            layers,
            batch if kind in ("sample", "full") else 1,
            n if kind in ("atom", "full") else 1,
        )
        return (scale * (0.5 + torch.rand(*shape, dtype=torch.float64, generator=g))).to(dtype)

    a = dictionary(m, n, dtype, seed)
    b = randn(batch, m)
    w = a + 0.05 * randn(layers if per_layer else 1, m, n)
    gram_form, learned = form == "gram", form == "learned gram"
    explicit = not gram_form or objective
    gram = a.mT @ w + (0.05 * randn(n, n) if learned else 0.0)
    return UnrolledArguments(
        linear=b @ w if gram_form else None,
        gram=gram if gram_form or learned else None,
        dictionary=a if explicit else None,
        weight=None if gram_form or tied else w,
        measurements=b if explicit else None,
        initial=randn(batch, n) if initial else None,
        step=None if step == "rule" else parameter(step, 0.3),
        threshold=parameter(threshold, level),
        rule_weight=randn(layers) if step == "rule" else None,
        rule_bias=randn(layers) if step == "rule" else None,
        momentum=0.5 * randn(layers) if momentum else None,
        prox_shape=LEAST_SHAPES[prox] + 0.5 + randn(layers).abs() if prox in LEAST_SHAPES else None,
        previous=randn(batch, n) if previous else None,
        rule_minimum=0.05,
        rule_maximum=0.6,
        prox=prox,
        bypass=(bypass,) * layers if bypass else (),
        objective_weight=0.3 if objective else 0.0,
        with_objective=objective,
        with_iterates=iterates,
        **options,
    )


def cast(a: UnrolledArguments, dtype: torch.dtype) -> UnrolledArguments:
    """The same arguments at another precision."""
    return UnrolledArguments(*[t.to(dtype) if isinstance(t, Tensor) else t for t in a])


def all_needed(a: UnrolledArguments) -> list[bool]:
    """Ask for every gradient that the arguments have."""
    return [t is not None for t in a[:N_DIFFERENTIABLE]]


def output_gradients(
    a: UnrolledArguments, seed: int = 1
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Random incoming gradients for the results that the arguments ask for."""
    g = torch.Generator().manual_seed(seed)
    results = reference.unrolled(a)
    codes, objective, iterates = (
        torch.randn(r.shape, dtype=torch.float64, generator=g).to(r.dtype) for r in results
    )
    return (
        codes,
        objective if a.with_objective else None,
        iterates if a.with_iterates else None,
    )


def assert_close(ours: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Largest error relative to the largest expected value; the message names the worst entry."""
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape} != {expected.shape}"
    if expected.numel() == 0:
        return
    error = (ours.double() - expected.double()).abs()
    scale = max(float(expected.double().abs().max()), 1e-30)
    worst = int(error.argmax())
    assert float(error.max()) <= tolerance * scale, (
        f"{what}: error {float(error.max()):.3e} of scale {scale:.3e} at flat index {worst} "
        f"(ours {float(ours.flatten()[worst])}, expected {float(expected.flatten()[worst])})"
    )


def differentiable(a: UnrolledArguments, tensors: Sequence[Tensor]) -> UnrolledArguments:
    """The arguments with the differentiable ones that are given replaced, in their order."""
    replacements = iter(tensors)
    replaced = [None if t is None else next(replacements) for t in a[:N_DIFFERENTIABLE]]
    return UnrolledArguments(*replaced, *a[N_DIFFERENTIABLE:])


def assert_same_bits(ours: Tensor, expected: Tensor, what: str) -> None:
    """Equality of every bit; NaN equals NaN, 0 does not equal -0."""
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape} != {expected.shape}"
    integer = torch.int64 if ours.dtype == torch.float64 else torch.int32
    differ = ours.contiguous().view(integer) != expected.contiguous().view(integer)
    assert not bool(differ.any()), (
        f"{what}: {int(differ.sum())} of {differ.numel()} numbers differ, "
        f"by up to {float((ours - expected).abs().max()):.3e}"
    )
