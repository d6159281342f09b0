"""Autograd around the operators: a Function outside the op, none where no gradient is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from fastunroll._native import Tape
from fastunroll.backend import forced_backend
from fastunroll.ops import cpu as cpu  # registers the native kernels
from fastunroll.ops import cuda as cuda
from fastunroll.ops import reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

_ops = torch.ops.fastunroll
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


def _double_backward() -> bool:
    """Whether a backward pass must itself be differentiable: that is the reference's job."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def is_plain(tensors: Iterable[Tensor | None]) -> bool:
    """Whether nothing but the kernel would see the call, so that the dispatcher can be left out.

    It takes as long as twenty layers of a small problem. Traces, fake tensors and modes need it.
    """
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    for t in tensors:
        if t is not None and (type(t) not in _PLAIN_TYPES or not t.is_cpu):
            return False
    return True


def needs_grad(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a call with these tensors is to be differentiated."""
    if not torch.is_grad_enabled():
        return False
    return any(t is not None and t.requires_grad for t in tensors)


class _Unrolled(torch.autograd.Function):
    """The recursion; outside a trace, a tape saves the backward pass a second forward pass."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor | None, Tensor | None, Tape | None]:
        a = UnrolledArguments(*arguments)
        if is_plain(a.differentiable) and cpu.tape_fits(a):
            tape = Tape()
            return (*cpu.run_unrolled(a, tape), tape)
        codes, objective, iterates = _ops.unrolled.default(*arguments)
        return (
            codes,
            objective if a.with_objective else None,
            iterates if a.with_iterates else None,
            None,
        )

    @staticmethod
    def setup_context(
        ctx: Any,
        inputs: tuple[Any, ...],
        output: tuple[Tensor, Tensor | None, Tensor | None, Tape | None],
    ) -> None:
        needs = ctx.needs_input_grad[:N_DIFFERENTIABLE]
        a = UnrolledArguments(*inputs).differentiated(needs)
        ctx.save_for_backward(*a.differentiable, a.previous)
        ctx.constants = a[N_DIFFERENTIABLE + 1 :]
        ctx.tape = output[3]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, codes: Tensor | None, objective: Tensor | None, iterates: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        a = UnrolledArguments(*ctx.saved_tensors, *ctx.constants)
        needs = list(ctx.needs_input_grad[:N_DIFFERENTIABLE])
        if _double_backward():
            found = reference.unrolled_backward(
                codes, objective, iterates, a, needs, create_graph=True
            )
        elif ctx.tape is not None:
            found = cpu.run_unrolled_backward((codes, objective, iterates), a, needs, ctx.tape)
        else:
            found = _ops.unrolled_backward.default(codes, objective, iterates, *a, needs)
        kept = [g if need else None for g, need in zip(found, needs, strict=True)]
        return (*kept, *[None] * (len(a) - N_DIFFERENTIABLE))


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, matrices: Tensor) -> Tensor:
        products: Tensor = _ops.multiply.default(rows, matrices)
        return products

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, matrices = ctx.saved_tensors
        for_rows, for_matrices = ctx.needs_input_grad
        return (
            torch.einsum("lbn,lmn->bm", grad, matrices) if for_rows else None,
            rows.mT @ grad if for_matrices else None,
        )


class _SmoothSlopes(torch.autograd.Function):
    """Slopes (n,) of the smooth soft threshold by the kernel, for u and thresholds (n,).

    Their own derivatives, the second ones of the threshold, are closed forms.
    """

    @staticmethod
    def forward(u: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        slopes: tuple[Tensor, Tensor] = _ops.shrink_backward.default(
            torch.ones_like(u), u, threshold, "smooth"
        )
        return slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, for_u: Tensor, for_threshold: Tensor) -> tuple[Tensor, Tensor]:
        curvature, mixed = reference.smooth_curvatures(*ctx.saved_tensors)
        return for_u * curvature + for_threshold * mixed, for_u * mixed + for_threshold * curvature


class _Shrink(torch.autograd.Function):
    @staticmethod
    def forward(u: Tensor, threshold: Tensor, prox: str) -> Tensor:
        shrunk: Tensor = _ops.shrink.default(u, threshold, prox)
        return shrunk

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.prox = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, threshold = ctx.saved_tensors
        if _double_backward() and ctx.prox == "smooth":
            flat = u.flatten(), threshold.expand_as(u).flatten()
            slopes = _SmoothSlopes.apply(*flat)  # type: ignore[no-untyped-call]
            for_u, for_threshold = (grad * slope.view_as(u) for slope in slopes)
            found = for_u, for_threshold.sum_to_size(threshold.shape)
        elif _double_backward():
            found = reference.shrink_backward(grad, u, threshold, ctx.prox)
        else:
            found = _ops.shrink_backward.default(grad, u, threshold, ctx.prox)
        return (*found, None)


def multiply(rows: Tensor, matrices: Tensor) -> Tensor:
    """Products (L, B, n) of rows (B, m) with matrices (L, m, n), each row as if it were alone."""
    if forced_backend() == "reference" or rows.shape[0] == 0:
        return reference.multiply(rows, matrices)
    products: Tensor = _Multiply.apply(rows, matrices)  # type: ignore[no-untyped-call]
    return products


def shrink(u: Tensor, threshold: Tensor, prox: str) -> Tensor:
    """Shrinkage (soft, nonnegative or smooth) with its gradient; the arguments are checked."""
    if forced_backend() == "reference" or u.numel() == 0:
        return reference.shrink(u, threshold, prox)
    if needs_grad((u, threshold)):
        shrunk: Tensor = _Shrink.apply(u, threshold, prox)  # type: ignore[no-untyped-call]
    else:
        shrunk = _ops.shrink.default(u, threshold, prox)
    return shrunk


def unrolled(a: UnrolledArguments) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Recursion with its gradient: codes, objective, iterates; None where not asked for."""
    if forced_backend() == "reference" or a.batch == 0:
        needs = [t is not None and t.requires_grad for t in a.differentiable]
        codes, objective, iterates = reference.unrolled(a.differentiated(needs))
    elif needs_grad(a.differentiable):
        codes, objective, iterates, _ = _Unrolled.apply(*a)  # type: ignore[no-untyped-call]
    elif is_plain(a.differentiable):
        return cpu.run_unrolled(a)
    else:
        codes, objective, iterates = _ops.unrolled.default(*a)
    return codes, objective if a.with_objective else None, iterates if a.with_iterates else None
