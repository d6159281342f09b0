"""The native CPU backend: tensors in, pointers on to the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastunroll import _native
from fastunroll._native import Tape
from fastunroll.ops.arguments import PROX_KINDS, UnrolledArguments
from fastunroll.ops.pack import pack, pack_operands
from fastunroll.ops.schema import library, zero_gradients

_SERIAL_WORK = 1 << 18
"""Multiply-adds below which starting threads costs more than it saves."""

_ERRORS: dict[int, tuple[type[Exception], str]] = {
    1: (ValueError, "step must be positive and finite"),
    2: (ValueError, "threshold must be finite and not negative"),
    3: (ValueError, "momentum must be finite"),
    4: (ValueError, "step.weight and step.bias must be finite"),
    5: (MemoryError, "not enough memory for the working buffers of the recursion"),
    6: (ValueError, "prox_shape must be finite and greater than 1 (firm) or 2 (scad)"),
}


def _raise_for(status: int) -> None:
    if status:
        error, message = _ERRORS[status]
        raise error(message)


def _threads(work: int) -> int:
    return 1 if work < _SERIAL_WORK else torch.get_num_threads()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _strides(parameter: Tensor | None) -> tuple[int, int, int]:
    """Strides of a (K, 1 or B, 1 or n) parameter, 0 where its axis is shared."""
    if parameter is None:
        return (0, 0, 0)
    layer, sample, atom = parameter.stride()
    _, samples, atoms = parameter.shape
    return (layer, sample if samples > 1 else 0, atom if atoms > 1 else 0)


def _rows_contiguous(parameter: Tensor | None) -> Tensor | None:
    """The parameter with unit stride over its atoms."""
    if parameter is None or parameter.shape[2] == 1 or parameter.stride(2) == 1:
        return parameter
    return parameter.contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


class Bound:
    """A native problem together with the tensors that its pointers belong to."""

    def __init__(self, a: UnrolledArguments, backward: bool) -> None:
        packed = a.packed or pack_operands(
            a.gram, a.dictionary, a.weight, backward=backward, analysis=a.linear is None
        )
        rows = [_contiguous(t) for t in (a.linear, a.measurements, a.initial, a.previous)]
        layer = [_contiguous(t) for t in (a.rule_weight, a.rule_bias, a.momentum, a.prox_shape)]
        step, threshold = _rows_contiguous(a.step), _rows_contiguous(a.threshold)
        self.keep_alive = (packed, rows, layer, step, threshold)
        m = a.dictionary.shape[0] if a.dictionary is not None else 0
        self.m, self.n, self.dtype = m, a.n_atoms, a.threshold.dtype
        double = self.dtype == torch.float64
        self.work_per_sample = a.n_layers * a.n_atoms * (a.n_atoms + m) // 4
        self.work = a.batch * self.work_per_sample
        make = _native.Problem_f64 if double else _native.Problem_f32
        self.problem: Any = make(
            (a.batch, m, a.n_atoms, a.n_layers),
            tuple(map(_address, packed)),
            a.gram is not None and a.gram.shape[0] > 1,
            a.weight is not None and a.weight.shape[0] > 1,
            tuple(map(_address, rows)),
            a.linear is not None and a.linear.shape[0] > 1,
            _address(step),
            _strides(step),
            _address(threshold),
            _strides(threshold),
            tuple(map(_address, layer)),
            a.rule_minimum,
            a.rule_maximum,
            a.bypass,
            PROX_KINDS.index(a.prox),
            a.skip,
            a.heavy_ball,
            a.with_objective,
            a.objective_weight,
        )

    def forward_rows(self, b: Tensor) -> Tensor:
        """Codes (batch, n) or (n,) of other measurements, contiguous and checked."""
        batch = b.shape[0] if b.dim() == 2 else 1
        codes = torch.empty(*b.shape[:-1], self.n, dtype=self.dtype)
        threads = _threads(batch * self.work_per_sample)
        _raise_for(self.problem.forward_rows(batch, b.data_ptr(), codes.data_ptr(), threads))
        return codes


def run_unrolled(
    a: UnrolledArguments, tape: Tape | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Forward pass; None for results that are not asked for. A tape is filled for the backward."""
    new_empty = a.threshold.new_empty
    layers, batch, n = a.n_layers, a.batch, a.n_atoms
    codes = new_empty(batch, n)
    objective = new_empty(layers + 1, batch) if a.with_objective else None
    iterates = new_empty(layers + 1, batch, n) if a.with_iterates else None
    bound = Bound(a, backward=False)
    addresses = (codes.data_ptr(), _address(objective), _address(iterates))
    _raise_for(bound.problem.forward(*addresses, tape, _threads(bound.work)))
    return codes, objective, iterates


def unrolled(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Forward pass; see `fastunroll.ops.reference.unrolled`."""
    codes, *others = run_unrolled(UnrolledArguments(*arguments))
    objective, iterates = (codes.new_empty(0) if t is None else t for t in others)
    return codes, objective, iterates


def unrolled_backward(
    grad_codes: Tensor | None,
    grad_objective: Tensor | None,
    grad_iterates: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    """Backward pass; see `fastunroll.ops.reference.unrolled_backward`."""
    *unrolled_arguments, needs = arguments
    grads = (grad_codes, grad_objective, grad_iterates)
    return run_unrolled_backward(grads, UnrolledArguments(*unrolled_arguments), needs)


def tape_fits(a: UnrolledArguments) -> bool:
    """Whether a tape of the supports is all that the backward pass needs of the forward pass."""
    special = a.rule_weight is not None or a.momentum is not None or bool(a.bypass)
    return a.gram is not None and not special


def run_unrolled_backward(
    grads: tuple[Tensor | None, ...],
    a: UnrolledArguments,
    needs: list[bool],
    tape: Tape | None = None,
) -> tuple[Tensor, ...]:
    """Backward pass, from a tape or else by running forward again."""
    if a.gram is not None and a.linear is None and any(needs[2:5]):
        raise RuntimeError("linear must be given where dictionary, weight or measurements learn")
    # The kernels sum dA and dW by atom, so they write them transposed; dW of W = A joins dA.
    targets = _transpose_matrices(zero_gradients(a, needs))
    bound = Bound(a, backward=True)
    incoming = [_contiguous(g) for g in grads]
    _raise_for(
        bound.problem.backward(
            tape,
            tuple(map(_address, incoming)),
            tuple(map(_address, targets)),
            1 if a.gram is None else a.gram.shape[0],
            0 if a.weight is None else a.weight.shape[0],
            _threads(bound.work),
        )
    )
    return _transpose_matrices(targets)


def _transpose_matrices(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients with those of dictionary and weight transposed."""
    return tuple(
        g.mT.contiguous() if name in ("dictionary", "weight") and g.numel() else g
        for name, g in zip(UnrolledArguments._fields, gradients, strict=False)
    )


def multiply(rows: Tensor, matrices: Tensor) -> Tensor:
    """Products of the rows with matrices; a row's result does not depend on its batch."""
    rows = rows.contiguous()
    packed = pack(matrices, "dictionary or weight")
    layers, m, n = matrices.shape
    batch = rows.shape[0]
    out = rows.new_empty(layers, batch, n)
    run = _native.multiply_f64 if rows.dtype == torch.float64 else _native.multiply_f32
    threads = _threads(layers * batch * m * n)
    addresses = (rows.data_ptr(), batch, packed.data_ptr(), layers, m, n, out.data_ptr())
    _raise_for(run(*addresses, threads))
    return out


def _shrink_problem(
    u: Tensor, threshold: Tensor, prox: str
) -> tuple[int, int, int, int, bool, bool, int]:
    rows = u.shape[0] if u.dim() == 2 else 1
    per_sample = threshold.dim() == 2 and threshold.shape[0] > 1
    per_atom = threshold.dim() > 0 and threshold.shape[-1] > 1
    kind = PROX_KINDS.index(prox)
    return (u.data_ptr(), rows, u.shape[-1], threshold.data_ptr(), per_sample, per_atom, kind)


def shrink(u: Tensor, threshold: Tensor, prox: str) -> Tensor:
    """Bare shrinkage; see `fastunroll.ops.reference.shrink`."""
    u, threshold = u.contiguous(), threshold.contiguous()
    out = torch.empty_like(u)
    double = u.dtype == torch.float64
    run = _native.shrink_f64 if double else _native.shrink_f32
    problem = _shrink_problem(u, threshold, prox)
    _raise_for(run(*problem, out.data_ptr(), _threads(u.numel())))
    return out


def shrink_backward(grad: Tensor, u: Tensor, threshold: Tensor, prox: str) -> tuple[Tensor, Tensor]:
    """Derivatives of the shrinkage with respect to ``u`` and the threshold."""
    grad, u, threshold = grad.contiguous(), u.contiguous(), threshold.contiguous()
    grad_u, grad_threshold = torch.empty_like(u), torch.empty_like(threshold)
    double = u.dtype == torch.float64
    run = _native.shrink_backward_f64 if double else _native.shrink_backward_f32
    problem = _shrink_problem(u, threshold, prox)
    results = (grad_u.data_ptr(), grad_threshold.data_ptr())
    _raise_for(run(grad.data_ptr(), *problem, *results, _threads(u.numel())))
    return grad_u, grad_threshold


library.impl("unrolled", unrolled, "CPU")
library.impl("unrolled_backward", unrolled_backward, "CPU")
library.impl("multiply", multiply, "CPU")
library.impl("shrink", shrink, "CPU")
library.impl("shrink_backward", shrink_backward, "CPU")
