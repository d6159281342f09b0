"""The CUDA backend: tensors in, pointers on to the kernels, on the current stream.

Nothing waits for the device, and all memory comes from PyTorch's allocator, so that calls can be
captured in a CUDA graph. For the same reason no value is checked. Sizes that the persistent kernels
do not take are composed of PyTorch's products and of our kernels, see
`fastunroll.ops.cuda_composed`. Without the module ``fastunroll._cuda`` nothing is registered here,
and tensors on a GPU go through the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastunroll.ops import cuda_composed, reference
from fastunroll.ops.addresses import address, contiguous
from fastunroll.ops.arguments import PROX_KINDS, UnrolledArguments
from fastunroll.ops.cuda_network import Bound, Kernels, Operands, Precision, precision_of
from fastunroll.ops.schema import library

WORKSPACE_BYTES = 1 << 28
"""Most that the backward pass takes for what it runs forward again, where chunks can be small."""

_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Element types, in the order of the native enumeration."""

_FIELDS = UnrolledArguments._fields
_DICTIONARY, _WEIGHT = _FIELDS.index("dictionary"), _FIELDS.index("weight")
_MEASUREMENTS = _FIELDS.index("measurements")
_FACTORED = (_DICTIONARY, _WEIGHT, _MEASUREMENTS)


class Gradients(NamedTuple):
    """Gradients of the results, None where there is none."""

    codes: Tensor | None
    objective: Tensor | None
    iterates: Tensor | None


class Backend:
    """The operators on a set of kernels."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def shrink(self, u: Tensor, threshold: Tensor, prox: str) -> Tensor:
        """Bare shrinkage; see `fastunroll.ops.reference.shrink`."""
        u = u.contiguous()
        out = torch.empty_like(u)
        kind, module = PROX_KINDS.index(prox), self.kernels.module
        problem = (_TYPES.index(u.dtype), u.data_ptr(), _shrink_sizes(u, threshold))
        with self.kernels.on(u.device) as stream:
            error = module.shrink(*problem, threshold.data_ptr(), kind, out.data_ptr(), stream)
        self.kernels.check(error)
        return out

    def shrink_backward(
        self, grad: Tensor, u: Tensor, threshold: Tensor, prox: str
    ) -> tuple[Tensor, Tensor]:
        """Derivatives of the shrinkage with respect to ``u`` and the threshold."""
        grad, u = grad.contiguous(), u.contiguous()
        grad_u = torch.empty_like(u)
        grad_threshold = torch.empty_like(threshold, memory_format=torch.contiguous_format)
        dtype, kind, module = _TYPES.index(u.dtype), PROX_KINDS.index(prox), self.kernels.module
        sizes = _shrink_sizes(u, threshold)
        with self.kernels.on(u.device) as stream:
            workspace = _bytes(u, module.shrink_backward_workspace(dtype, sizes, kind))
            error = module.shrink_backward(
                *(dtype, u.data_ptr(), sizes, threshold.data_ptr(), kind, grad.data_ptr()),
                *(grad_u.data_ptr(), grad_threshold.data_ptr(), workspace.data_ptr(), stream),
            )
        self.kernels.check(error)
        return grad_u, grad_threshold

    def unrolled(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Forward pass; see `fastunroll.ops.reference.unrolled`."""
        a = UnrolledArguments(*arguments)
        codes, iterates = self._forward(a, with_iterates=a.with_iterates or a.with_objective)
        return (
            codes,
            reference.objective(a, iterates) if a.with_objective else codes.new_empty(0),
            iterates if a.with_iterates else codes.new_empty(0),
        )

    def unrolled_backward(
        self,
        grad_codes: Tensor | None,
        grad_objective: Tensor | None,
        grad_iterates: Tensor | None,
        *arguments: Any,
    ) -> tuple[Tensor, ...]:
        """Backward pass; see `fastunroll.ops.reference.unrolled_backward`."""
        *unrolled, needs = arguments
        a = UnrolledArguments(*unrolled).differentiated(needs)
        grads = Gradients(grad_codes, grad_objective, grad_iterates)
        if grads.objective is None:
            return _filled(a, self._through_linear(a, grads, needs), needs)
        # F(x_k) = 1/2 ||x_k A^T - b||^2 + lambda ||x_k||_1 by itself, then what it adds to x_k.
        _, iterates = self._forward(a, with_iterates=True)
        wanted = (True, needs[_DICTIONARY], needs[_MEASUREMENTS])
        through = iter(reference.objective_backward(a, iterates, grads.objective, wanted))
        added = next(through)
        if grads.iterates is not None:
            added = added + grads.iterates
        found = list(self._through_linear(a, Gradients(grads.codes, None, added), needs))
        for place in (_DICTIONARY, _MEASUREMENTS):
            if needs[place]:
                own = next(through)
                found[place] = found[place] + own if found[place].numel() else own
        return _filled(a, found, needs)

    def _through_linear(
        self, a: UnrolledArguments, grads: Gradients, needs: list[bool]
    ) -> tuple[Tensor, ...]:
        """The backward pass, and where c = b W is made here, that of this product."""
        if a.gram is None or a.linear is not None or not any(needs[i] for i in _FACTORED):
            return self._backward(a, grads, needs)
        of_linear = [need or i == 0 for i, need in enumerate(needs)]
        found = list(self._backward(_with_linear(a), grads, of_linear))
        assert a.measurements is not None
        place, analysis = (_DICTIONARY, a.dictionary) if a.weight is None else (_WEIGHT, a.weight)
        assert analysis is not None
        if needs[place]:
            found[place] = (a.measurements.mT @ found[0]).sum_to_size(analysis.shape)
        if needs[_MEASUREMENTS]:
            found[_MEASUREMENTS] = torch.einsum(
                "lbn,lmn->bm", found[0], analysis if analysis.dim() == 3 else analysis[None]
            )
        found[0] = a.threshold.new_empty(0)
        return tuple(found)

    def _forward(self, a: UnrolledArguments, with_iterates: bool) -> tuple[Tensor, Tensor]:
        """Codes, and the iterates where they are wanted."""
        a = _with_linear(a)
        shape = (a.n_layers + 1, a.batch, a.n_atoms) if with_iterates else (0,)
        codes, iterates = (a.threshold.new_empty(s) for s in ((a.batch, a.n_atoms), shape))
        with self.kernels.on(codes.device) as stream:
            device = self.kernels.describe(codes.device)
            precision = precision_of(a, device)
            bound = Bound(self.kernels, a, precision)
            plan = bound.network.plan_forward(device)
            if plan.path == 0:
                cuda_composed.forward(self.kernels, bound, codes, iterates, stream)
                return codes, iterates
            bound.place(self._packed(a, precision, stream, backward=False))
            workspace = _bytes(codes, plan.workspace)
            addresses = (codes.data_ptr(), iterates.data_ptr())
            error = bound.network.forward(*addresses, plan, workspace.data_ptr(), stream)
        self.kernels.check(error)
        return codes, iterates

    def _backward(
        self, a: UnrolledArguments, grads: Gradients, needs: list[bool]
    ) -> tuple[Tensor, ...]:
        a = _with_linear(a)
        if a.gram is not None:  # then A and b are there for the objective alone
            needs = [need and i not in _FACTORED for i, need in enumerate(needs)]
        incoming = (contiguous(grads.codes), contiguous(grads.iterates))
        with self.kernels.on(a.threshold.device) as stream:
            targets = _targets(a, needs)
            device = self.kernels.describe(a.threshold.device)
            precision = precision_of(a, device)
            bound = Bound(self.kernels, a, precision)
            call = (
                tuple(map(address, incoming)),
                tuple(map(address, targets)),
                1 if a.gram is None else a.gram.shape[0],
                0 if a.weight is None else a.weight.shape[0],
            )
            plan = bound.network.plan_backward(*call, device, WORKSPACE_BYTES)
            if plan.path == 0:
                return cuda_composed.backward(self.kernels, a, *incoming, needs, stream)
            bound.place(self._packed(a, precision, stream, backward=True))
            workspace = _bytes(a.threshold, plan.workspace)
            error = bound.network.backward(*call, plan, workspace.data_ptr(), stream)
        self.kernels.check(error)
        return tuple(
            g.mT.contiguous() if i in (_DICTIONARY, _WEIGHT) and g.numel() else g
            for i, g in enumerate(targets)
        )

    def _packed(
        self, a: UnrolledArguments, precision: Precision, stream: int, *, backward: bool
    ) -> Operands:
        if a.packed:
            return Operands(*a.packed)
        matrices = (a.gram, a.dictionary, a.weight)
        return self.kernels.pack_operands(
            *matrices, stream, precisions=(precision,), backward=backward
        )

    def prepare(
        self, gram: Tensor | None, dictionary: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Pack the matrices of a prepared dictionary, for every precision and both passes."""
        double = dictionary.dtype == torch.float64
        precisions = (Precision.PLAIN,) if double else (Precision.SPLIT, Precision.MIXED)
        with self.kernels.on(dictionary.device) as stream:
            return self.kernels.pack_operands(
                gram, dictionary, weight, stream, precisions=precisions
            )


def _bytes(like: Tensor, count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=like.device)


def _shrink_sizes(u: Tensor, threshold: Tensor) -> tuple[int, int, int, int]:
    """Rows and columns of u, and the strides of its threshold over them."""
    shape, strides = threshold.shape, threshold.stride()
    per_row = strides[0] if threshold.dim() == 2 and shape[0] > 1 else 0
    per_column = strides[-1] if threshold.dim() and shape[-1] > 1 else 0
    return (u.shape[0] if u.dim() == 2 else 1, u.shape[-1], per_row, per_column)


def _with_linear(a: UnrolledArguments) -> UnrolledArguments:
    """The arguments with c = b W where the Gram form needs it."""
    if a.gram is None or a.linear is not None:
        return a
    assert a.dictionary is not None and a.measurements is not None
    analysis = a.dictionary[None] if a.weight is None else a.weight
    return a._replace(linear=reference.multiply(a.measurements, analysis))


def _filled(a: UnrolledArguments, found: Sequence[Tensor], needs: list[bool]) -> tuple[Tensor, ...]:
    """The gradients with zeros for arguments that play no part in the form that ran."""
    return tuple(
        g.new_zeros(t.shape) if need and t is not None and g.numel() == 0 else g
        for g, t, need in zip(found, a.differentiable, needs, strict=True)
    )


def _targets(a: UnrolledArguments, needs: list[bool]) -> tuple[Tensor, ...]:
    """Memory for the gradients; those of A and W are written transposed."""
    shapes = [
        t.shape if need and t is not None else (0,)
        for t, need in zip(a.differentiable, needs, strict=True)
    ]
    for i in (_DICTIONARY, _WEIGHT):
        shapes[i] = (*shapes[i][:-2], *reversed(shapes[i][-2:]))
    return tuple(a.threshold.new_empty(shape) for shape in shapes)


BACKEND: Backend | None = None
"""The operators on a GPU; None where the CUDA kernels were not built."""

if find_spec("fastunroll._cuda") is not None:
    BACKEND = Backend(Kernels(import_module("fastunroll._cuda")))
    for _name in ("unrolled", "unrolled_backward", "shrink", "shrink_backward"):
        library.impl(_name, getattr(BACKEND, _name), "CUDA")
