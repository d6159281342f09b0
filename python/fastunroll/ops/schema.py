"""Schemas of the operators, the shapes of their results, and the fallback for any device.

This is the only place where an operator's signature is written down; the arguments of the recursion
are the fields of `UnrolledArguments`, in their order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastunroll.ops import reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

_UNROLLED = """
    Tensor? linear, Tensor? gram, Tensor? dictionary, Tensor? weight, Tensor? measurements,
    Tensor? initial, Tensor? step, Tensor threshold, Tensor? rule_weight, Tensor? rule_bias,
    Tensor? momentum, Tensor? prox_shape, Tensor? previous, float rule_minimum,
    float rule_maximum, str prox, int[] bypass, bool skip, bool heavy_ball,
    float objective_weight, bool with_objective, bool with_iterates, Tensor[] packed
"""
_GRADIENTS = ", ".join(["Tensor"] * N_DIFFERENTIABLE)

library = torch.library.Library("fastunroll", "DEF")
library.define(f"unrolled({_UNROLLED}) -> (Tensor, Tensor, Tensor)")
library.define(
    "unrolled_backward(Tensor? grad_codes, Tensor? grad_objective, Tensor? grad_iterates, "
    f"{_UNROLLED}, bool[] needs) -> ({_GRADIENTS})"
)
library.define("multiply(Tensor rows, Tensor matrices) -> Tensor")
library.define("shrink(Tensor u, Tensor threshold, str prox) -> Tensor")
library.define(
    "shrink_backward(Tensor grad, Tensor u, Tensor threshold, str prox) -> (Tensor, Tensor)"
)


def zero_gradients(a: UnrolledArguments, needs: list[bool]) -> tuple[Tensor, ...]:
    """Zeros in the shapes of the differentiable arguments; empty where not needed."""
    return tuple(
        a.threshold.new_zeros(t.shape if need and t is not None else (0,))
        for t, need in zip(a.differentiable, needs, strict=True)
    )


def _unrolled_shapes(*arguments: object) -> tuple[Tensor, Tensor, Tensor]:
    a = UnrolledArguments(*arguments)  # type: ignore[arg-type]
    new_empty, layers, batch, n = a.threshold.new_empty, a.n_layers, a.batch, a.n_atoms
    return (
        new_empty(batch, n),
        new_empty((layers + 1, batch) if a.with_objective else (0,)),
        new_empty((layers + 1, batch, n) if a.with_iterates else (0,)),
    )


def _unrolled_backward_shapes(
    grad_codes: Tensor | None,
    grad_objective: Tensor | None,
    grad_iterates: Tensor | None,
    *arguments: object,
) -> tuple[Tensor, ...]:
    *unrolled, needs = arguments
    return zero_gradients(UnrolledArguments(*unrolled), needs)  # type: ignore[arg-type]


def _multiply_shape(rows: Tensor, matrices: Tensor) -> Tensor:
    return rows.new_empty(matrices.shape[0], rows.shape[0], matrices.shape[2])


def _shrink_shape(u: Tensor, threshold: Tensor, prox: str) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def _shrink_backward_shapes(
    grad: Tensor, u: Tensor, threshold: Tensor, prox: str
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(u, memory_format=torch.contiguous_format),
        torch.empty_like(threshold, memory_format=torch.contiguous_format),
    )


for _name, _shapes in (
    ("unrolled", _unrolled_shapes),
    ("unrolled_backward", _unrolled_backward_shapes),
    ("multiply", _multiply_shape),
    ("shrink", _shrink_shape),
    ("shrink_backward", _shrink_backward_shapes),
):
    torch.library.register_fake(f"fastunroll::{_name}", _shapes, lib=library)


def _unrolled_fallback(*arguments: object) -> tuple[Tensor, Tensor, Tensor]:
    a = UnrolledArguments(*arguments)  # type: ignore[arg-type]
    return reference.unrolled(a)


def _unrolled_backward_fallback(
    grad_codes: Tensor | None,
    grad_objective: Tensor | None,
    grad_iterates: Tensor | None,
    *arguments: object,
) -> tuple[Tensor, ...]:
    *unrolled, needs = arguments
    a = UnrolledArguments(*unrolled)  # type: ignore[arg-type]
    return reference.unrolled_backward(grad_codes, grad_objective, grad_iterates, a, needs)  # type: ignore[arg-type]


library.impl("unrolled", _unrolled_fallback, "CompositeExplicitAutograd")
library.impl("unrolled_backward", _unrolled_backward_fallback, "CompositeExplicitAutograd")
library.impl("multiply", reference.multiply, "CompositeExplicitAutograd")
library.impl("shrink", reference.shrink, "CompositeExplicitAutograd")
library.impl("shrink_backward", reference.shrink_backward, "CompositeExplicitAutograd")
