"""The recursion layer by layer: PyTorch's products, and our kernels for all that is around them.

For sizes that the persistent kernels do not take. The backward pass runs forward again, a part of
the batch at a time, so that what it keeps of it stays small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastunroll.ops.addresses import address
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments
from fastunroll.ops.cuda_network import Bound, Kernels, Precision

TRACE_BYTES = 1 << 29
"""Most that the backward pass keeps of the forward pass, where parts of the batch can be small."""

BATCHED = {"linear": 1, "measurements": 0, "initial": 0, "previous": 0, "step": 1, "threshold": 1}
"""Arguments with an axis for the samples, and which that is; steps and thresholds may share."""


class Trace(NamedTuple):
    """What the backward pass reads of one layer."""

    codes: Tensor | None  # x_k; None: 0
    before: Tensor | None  # x_{k-1}; None: x_k
    point: Tensor | None  # where the gradient is taken; None: 0
    residual: Tensor | None  # r, factored form
    direction: Tensor  # v
    next: Tensor  # x_{k+1}
    norm: Tensor | None  # ||v|| with a rule
    rank: Tensor | None  # where the support selection ends


def forward(
    kernels: Kernels, bound: Bound, codes: Tensor, iterates: Tensor, stream: int
) -> list[Trace]:
    """Write the codes, and the iterates where there is room for them; tell of every layer."""
    a = bound.arguments
    new_empty = a.threshold.new_empty
    layers = []
    x, before = a.initial, a.previous
    if x is None and a.momentum is not None:
        x = codes.new_zeros(codes.shape)  # the next layer's x_{k-1}
    if iterates.numel():
        iterates[0] = 0 if x is None else x
    for k in range(a.n_layers):
        point = x
        if x is not None and a.momentum is not None and not a.heavy_ball:
            point = torch.empty_like(x)
            at = (x.data_ptr(), address(before), point.data_ptr())
            kernels.check(bound.network.extrapolate(k, *at, stream))
        residual, direction = _direction(a, point, k)
        is_last = k == a.n_layers - 1
        following = codes if is_last else new_empty(a.batch, a.n_atoms)
        norm = None if a.rule_weight is None else new_empty(a.batch)
        rank = new_empty(a.batch) if any(a.bypass) else None
        layer = Trace(x, before, point, residual, direction, following, norm, rank)
        kernels.check(bound.network.layer_forward(k, _addresses(layer), stream))
        if iterates.numel():
            iterates[k + 1] = following
        layers.append(layer)
        before, x = x, following
    return layers


def _addresses(layer: Trace) -> tuple[int, ...]:
    arrays = (layer.codes, layer.before, layer.direction, layer.next, layer.norm, layer.rank)
    return tuple(map(address, arrays))


def _direction(a: UnrolledArguments, point: Tensor | None, k: int) -> tuple[Tensor | None, Tensor]:
    """Residual, in the factored form, and direction v at a point; None is 0."""
    if a.gram is not None:
        assert a.linear is not None
        linear = _of_layer(a.linear, k)
        if point is None:
            return None, -linear
        return None, torch.addmm(linear, point, _of_layer(a.gram, k), beta=-1)
    assert a.dictionary is not None and a.measurements is not None
    if point is None:
        residual = -a.measurements
    else:
        residual = torch.addmm(a.measurements, point, a.dictionary.mT, beta=-1)
    return residual, residual @ _weight(a, k)


def _of_layer(stack: Tensor, k: int) -> Tensor:
    return stack[k if stack.shape[0] > 1 else 0]


def _weight(a: UnrolledArguments, k: int) -> Tensor:
    assert a.dictionary is not None
    return a.dictionary if a.weight is None else _of_layer(a.weight, k)


def backward(
    kernels: Kernels,
    a: UnrolledArguments,
    grad_codes: Tensor | None,
    grad_iterates: Tensor | None,
    needs: list[bool],
    stream: int,
) -> tuple[Tensor, ...]:
    """Gradients of the differentiable arguments; empty where not needed."""
    names = [
        name
        for name, t, need in zip(a._fields, a.differentiable, needs, strict=False)
        if need and t is not None
    ]
    given = a._asdict()
    found = {name: a.threshold.new_zeros(given[name].shape) for name in names}
    sample_bytes = a.n_layers * 4 * a.n_atoms * a.threshold.element_size()
    size = max(1, TRACE_BYTES // sample_bytes)
    for first in range(0, a.batch, size):
        rows = slice(first, min(first + size, a.batch))
        cut: dict[str, Any] = {
            name: _rows(given[name], axis, rows) for name, axis in BATCHED.items()
        }
        part = a._replace(**cut)
        incoming = (
            None if grad_codes is None else grad_codes[rows],
            None if grad_iterates is None else grad_iterates[:, rows],
        )
        gradients = _Part(kernels, part, names, stream).run(*incoming)
        for name, gradient in gradients.items():
            axis = BATCHED.get(name)
            if axis is not None and found[name].shape[axis] == a.batch and a.batch > 1:
                found[name].narrow(axis, first, rows.stop - first).copy_(gradient)
            else:
                found[name] += gradient
    all_names = UnrolledArguments._fields[:N_DIFFERENTIABLE]
    return tuple(found.pop(n) if n in found else a.threshold.new_empty(0) for n in all_names)


def _rows(value: Tensor | None, axis: int, rows: slice) -> Tensor | None:
    if value is None or value.shape[axis] == 1:
        return value
    return value.narrow(axis, rows.start, rows.stop - rows.start).contiguous()


class _Part:
    """The backward pass of a part of the batch."""

    def __init__(
        self, kernels: Kernels, a: UnrolledArguments, names: list[str], stream: int
    ) -> None:
        self.kernels, self.a, self.stream = kernels, a, stream
        self.bound = Bound(kernels, a, Precision.PLAIN)
        given = a._asdict()
        self.found = {name: a.threshold.new_zeros(given[name].shape) for name in names}

    def run(self, grad_codes: Tensor | None, grad_iterates: Tensor | None) -> dict[str, Tensor]:
        """Gradients by name."""
        a = self.a
        shape = (a.batch, a.n_atoms)
        codes = a.threshold.new_empty(shape)
        layers = forward(self.kernels, self.bound, codes, codes.new_empty(0), self.stream)
        grad = codes.new_zeros(shape) if grad_codes is None else grad_codes.clone()
        from_above: Tensor | None = None  # of x_{k-1}, by way of this layer's momentum
        count = self.bound.network.layer_backward_workspace()
        workspace = torch.empty(count, dtype=torch.uint8, device=codes.device)
        for k in reversed(range(a.n_layers)):
            if grad_iterates is not None:
                grad += grad_iterates[k + 1]
            layer = layers.pop()
            at_direction, at_y = torch.empty_like(codes), torch.empty_like(codes)
            self._through_shrinkage(k, layer, grad, (at_direction, at_y), workspace)
            at_point = self._through_products(k, layer, at_direction)
            if not a.heavy_ball:
                at_y += at_point
            grad, from_above = self._through_momentum(k, layer, at_y, from_above)
            if a.heavy_ball:
                grad += at_point
        if "initial" in self.found:
            if from_above is not None and a.previous is None:
                grad += from_above
            self.found["initial"] += grad if grad_iterates is None else grad + grad_iterates[0]
        return self.found

    def _through_shrinkage(
        self,
        k: int,
        layer: Trace,
        grad: Tensor,
        outgoing: tuple[Tensor, Tensor],
        workspace: Tensor,
    ) -> None:
        parameters = ("step", "threshold", "rule_weight", "rule_bias", "prox_shape")
        targets = (grad, *outgoing, *(self.found.get(name) for name in parameters))
        addresses = (_addresses(layer), tuple(map(address, targets)))
        network = self.bound.network
        self.kernels.check(network.layer_backward(k, *addresses, workspace.data_ptr(), self.stream))

    def _through_products(self, k: int, layer: Trace, grad: Tensor) -> Tensor:
        """From the gradient of v to that of the point; the gradients of the matrices are added."""
        a, found = self.a, self.found
        if a.gram is not None:
            if "linear" in found:
                _of_layer(found["linear"], k).sub_(grad)
            if "gram" in found and layer.point is not None:
                _of_layer(found["gram"], k).addmm_(layer.point.mT, grad)
            return grad @ _of_layer(a.gram, k).mT
        assert layer.residual is not None and a.dictionary is not None
        at_residual = grad @ _weight(a, k).mT
        if a.weight is None and "dictionary" in found:
            found["dictionary"].addmm_(layer.residual.mT, grad)
        if "weight" in found:
            _of_layer(found["weight"], k).addmm_(layer.residual.mT, grad)
        if "dictionary" in found and layer.point is not None:
            found["dictionary"].addmm_(at_residual.mT, layer.point)
        if "measurements" in found:
            found["measurements"].sub_(at_residual)
        return at_residual @ a.dictionary

    def _through_momentum(
        self, k: int, layer: Trace, grad: Tensor, from_above: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """From the gradient of y to those of x_k, with what came from above, and of x_{k-1}."""
        if self.a.momentum is None:
            return grad, None
        momentum = self.a.momentum[k]
        if "momentum" in self.found and layer.codes is not None and layer.before is not None:
            self.found["momentum"][k] += (grad * (layer.codes - layer.before)).sum()
        at_codes = grad + momentum * grad
        return at_codes if from_above is None else at_codes + from_above, -momentum * grad
