"""The native CPU backend: tensors in, pointers on to the kernels."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastunroll import _native
from fastunroll._native import Tape
from fastunroll.ops import native
from fastunroll.ops.addresses import address, contiguous, parameter, rows_contiguous
from fastunroll.ops.arguments import PROX_KINDS, UnrolledArguments
from fastunroll.ops.pack import PackedOperands, empty_packed, pack, pack_operands
from fastunroll.ops.schema import library

_PACKED_BY_TILE = 1024
"""Samples up to which each tile packs the matrices of its layers, which then stay in the cache."""


def _threads(work: int) -> int:
    return native.threads_for(work, torch.get_num_threads())


def _layers(matrices: Tensor | None, by_tile: bool) -> native.Parameter:
    """Matrices of every layer that the kernels pack themselves."""
    if matrices is None or len(matrices) == 1 or not by_tile:
        return native.Parameter()
    layer, row, column = matrices.stride()
    return native.Parameter(matrices.data_ptr(), (layer, row, column))


class Bound:
    """A native problem together with the tensors that its pointers belong to."""

    def __init__(
        self,
        a: UnrolledArguments,
        *,
        forward: bool = True,
        backward: bool = False,
        adjoint: bool = False,
    ) -> None:
        by_tile = not a.packed and a.batch <= _PACKED_BY_TILE
        packed = a.packed or pack_operands(
            a.gram,
            a.dictionary,
            a.weight,
            forward=forward,
            backward=backward,
            objective=a.with_objective,
            analysis=a.linear is None,
            adjoint=adjoint,
            untied=not by_tile,
        )
        rows = [contiguous(t) for t in (a.linear, a.measurements, a.initial, a.previous)]
        layer = [contiguous(t) for t in (a.rule_weight, a.rule_bias, a.momentum, a.prox_shape)]
        step, threshold = rows_contiguous(a.step), rows_contiguous(a.threshold)
        self.keep_alive = (packed, rows, layer, step, threshold)
        m = a.dictionary.shape[0] if a.dictionary is not None else 0
        self.m, self.n, self.dtype = m, a.n_atoms, a.threshold.dtype
        self.work_per_sample = native.work_per_sample(a.n_layers, m, a.n_atoms)
        self.work = a.batch * self.work_per_sample
        self.problem = native.make_problem(
            a.threshold.element_size(),
            (a.batch, m, a.n_atoms, a.n_layers),
            tuple(map(address, packed)),
            gram_per_layer=a.gram is not None and a.gram.shape[0] > 1,
            weight_per_layer=a.weight is not None and a.weight.shape[0] > 1,
            layers=(_layers(a.gram, by_tile), _layers(a.weight, by_tile)),
            rows=tuple(map(address, rows)),
            linear_per_layer=a.linear is not None and a.linear.shape[0] > 1,
            step=parameter(step),
            threshold=parameter(threshold),
            layer=tuple(map(address, layer)),
            rule_range=(a.rule_minimum, a.rule_maximum),
            bypass=a.bypass,
            prox=a.prox,
            skip=a.skip,
            heavy_ball=a.heavy_ball,
            objective_weight=a.objective_weight if a.with_objective else None,
        )

    @cached_property
    def engine(self) -> Any:
        """What runs the problem again and again, with working memory that stays."""
        return native.make_engine(self.dtype.itemsize, self.problem, self.work_per_sample, 1)

    def forward_rows(self, b: Tensor) -> Tensor:
        """Codes (batch, n) or (n,) of other measurements, contiguous and checked."""
        batch = b.shape[0] if b.dim() == 2 else 1
        codes = torch.empty(*b.shape[:-1], self.n, dtype=self.dtype)
        threads = _threads(batch * self.work_per_sample)
        native.check(self.engine.run_rows(batch, b.data_ptr(), codes.data_ptr(), threads))
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
    bound = Bound(a)
    addresses = (codes.data_ptr(), address(objective), address(iterates))
    native.check(bound.problem.forward(*addresses, tape, _threads(bound.work)))
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
    return a.rule_weight is None and a.momentum is None


def run_unrolled_backward(
    grads: tuple[Tensor | None, ...],
    a: UnrolledArguments,
    needs: list[bool],
    tape: Tape | None = None,
) -> tuple[Tensor, ...]:
    """Backward pass, from a tape or else by running forward again."""
    a = a.differentiated(needs)
    targets = _gradients(a, needs)
    adjoint = needs[UnrolledArguments._fields.index("measurements")]
    bound = Bound(a, forward=tape is None, backward=True, adjoint=adjoint)
    incoming = [contiguous(g) for g in grads]
    native.check(
        bound.problem.backward(
            tape,
            tuple(map(address, incoming)),
            tuple(map(address, targets)),
            1 if a.gram is None else a.gram.shape[0],
            0 if a.weight is None else a.weight.shape[0],
            _threads(bound.work),
        )
    )
    return targets


def _gradients(a: UnrolledArguments, needs: list[bool]) -> tuple[Tensor, ...]:
    """Memory for the gradients: the kernels write those of matrices, and add to the others."""
    new_empty, new_zeros = a.threshold.new_empty, a.threshold.new_zeros
    return tuple(
        (new_empty if name in ("gram", "dictionary", "weight") else new_zeros)(
            t.shape if need and t is not None else (0,)
        )
        for name, t, need in zip(UnrolledArguments._fields, a.differentiable, needs, strict=False)
    )


def multiply(rows: Tensor, matrices: Tensor) -> Tensor:
    """Products of the rows with matrices; a row's result does not depend on its batch."""
    rows = rows.contiguous()
    packed = pack(matrices, "dictionary or weight")
    layers, m, n = matrices.shape
    batch = rows.shape[0]
    out = rows.new_empty(layers, batch, n)
    addresses = (rows.data_ptr(), packed.data_ptr())
    sizes = (layers, batch, m, n)
    threads = torch.get_num_threads()
    native.multiply(rows.element_size(), *addresses, sizes, out.data_ptr(), threads)
    return out


def pack_with_gram(dictionary: Tensor, *, objective: bool = False) -> PackedOperands:
    """Pack what a forward pass in Gram form with W = A reads; G is computed; carries no gradient.

    Raises
    ------
    ValueError
        If A (m, n) or A^T A contains NaN or Inf.
    """
    dictionary = dictionary.detach()
    m, n = dictionary.shape
    weight, dictionary_t = pack(dictionary, "dictionary"), pack(dictionary.mT)
    gram = empty_packed(dictionary, (1, n, n))
    operands = dictionary_t.data_ptr(), weight.data_ptr()
    native.gram(gram.element_size(), *operands, (m, n), gram.data_ptr(), torch.get_num_threads())
    none = dictionary.new_empty(0)
    return PackedOperands(gram, gram, dictionary_t if objective else none, weight, none)


def gram(dictionary: Tensor) -> Tensor:
    """Gram matrix A^T A (n, n) of A (m, n), symmetric bit for bit; carries no gradient."""
    packed = pack_with_gram(dictionary).gram[0]
    return packed.transpose(0, 1).flatten(1)[:, : dictionary.shape[1]]


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
    native.check(run(*problem, out.data_ptr(), _threads(u.numel())))
    return out


def shrink_backward(grad: Tensor, u: Tensor, threshold: Tensor, prox: str) -> tuple[Tensor, Tensor]:
    """Derivatives of the shrinkage with respect to ``u`` and the threshold."""
    grad, u, threshold = grad.contiguous(), u.contiguous(), threshold.contiguous()
    grad_u, grad_threshold = torch.empty_like(u), torch.empty_like(threshold)
    double = u.dtype == torch.float64
    run = _native.shrink_backward_f64 if double else _native.shrink_backward_f32
    problem = _shrink_problem(u, threshold, prox)
    results = (grad_u.data_ptr(), grad_threshold.data_ptr())
    native.check(run(grad.data_ptr(), *problem, *results, _threads(u.numel())))
    return grad_u, grad_threshold


library.impl("unrolled", unrolled, "CPU")
library.impl("unrolled_backward", unrolled_backward, "CPU")
library.impl("multiply", multiply, "CPU")
library.impl("shrink", shrink, "CPU")
library.impl("shrink_backward", shrink_backward, "CPU")
