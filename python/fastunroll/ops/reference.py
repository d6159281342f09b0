"""Reference backend: every operator in plain PyTorch, under the same name.

It defines the meaning of the operators, serves dtypes and devices without a kernel, and is what
``torch.func`` and double backward differentiate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastunroll.ops.arguments import LEAST_SHAPES, N_DIFFERENTIABLE, UnrolledArguments


def multiply(rows: Tensor, matrices: Tensor) -> Tensor:
    """Products of the rows (B, m) with matrices (L, m, n): (L, B, n)."""
    return rows @ matrices


def soft_threshold(u: Tensor, threshold: Tensor, nonnegative: bool = False) -> Tensor:
    """Soft threshold S_t(u) = sign(u) max(|u| - t, 0); non-negative codes: max(u - t, 0).

    Value and derivative at the kink |u| = t are 0; NaN in gives NaN out.
    """
    size = u if nonnegative else u.abs()
    shrunk = u - threshold if nonnegative else u - torch.sign(u) * threshold
    return torch.where(size <= threshold, torch.zeros_like(shrunk), shrunk)


def smooth_soft_threshold(u: Tensor, threshold: Tensor) -> Tensor:
    """Smooth soft threshold s_t(u) = log(1 + e^(u - t)) - log(1 + e^(-u - t)).

    Written by log(sigmoid), whose derivatives of every order PyTorch knows.
    """
    return logsigmoid(u + threshold) - logsigmoid(threshold - u)


def smooth_curvatures(u: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Second derivatives of the smooth soft threshold: d2s/du2, which d2s/dt2 equals, and d2s/dudt.

    With z = tanh(u/2) tanh(t/2), near = e^(-||u| - t|) and c = 4 near / ((1 + near) (1 + |z|))^2
    they are z c and -(1 + z^2) c / 2, in which nothing cancels and nothing overflows.
    """
    size = u.abs()
    high, low = torch.maximum(size, threshold), torch.minimum(size, threshold)
    gap = high - low
    near = torch.exp(-gap)
    rest = torch.where(near > 0, (high - gap) - low, 0.0)  # the rounding error of the gap
    z = torch.tanh(u / 2) * torch.tanh(threshold / 2)
    over = near * (2 + near) + rest * (1 - near * near)  # (1 + near)^2 - 1, but for the gap's rest
    more = z.abs() * (2 + z.abs())
    scale = 4 * near / (1 + (over + (more + over * more)))
    return z * scale, -0.5 * (1 + z * z) * scale


def folded_threshold(u: Tensor, threshold: Tensor, shape: Tensor, bend: float) -> Tensor:
    """Firm (``bend`` 1) and SCAD (``bend`` 2) shrinkage.

    |x| is 0 up to |u| = t, the soft threshold's up to |u| = bend t, grows in a line from there to
    |x| = |u| at |u| = shape t, and is |u| beyond. A kink belongs to the piece below it.
    """
    size = u.abs()
    over = size - bend * threshold
    shrunk = size - threshold + torch.where(over > 0, over / (shape - bend), torch.zeros_like(over))
    magnitude = torch.where(size > shape * threshold, size, shrunk)
    return torch.where(size <= threshold, torch.zeros_like(u), torch.sign(u) * magnitude)


def shrink(u: Tensor, threshold: Tensor, kind: str) -> Tensor:
    """One of the shrinkages without a shape: soft, nonnegative or smooth."""
    if kind == "smooth":
        return smooth_soft_threshold(u, threshold)
    return soft_threshold(u, threshold, nonnegative=kind == "nonnegative")


def shrink_backward(grad: Tensor, u: Tensor, threshold: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Derivatives of `shrink` with respect to ``u`` and the threshold."""
    if kind == "smooth":
        above, below = torch.sigmoid(u - threshold), torch.sigmoid(-u - threshold)
        return grad * (above + below), (grad * (below - above)).sum_to_size(threshold.shape)
    keep = ~((u if kind == "nonnegative" else u.abs()) <= threshold)
    grad_u = torch.where(keep, grad, torch.zeros_like(grad))
    terms = -grad_u if kind == "nonnegative" else -torch.sign(u) * grad_u
    return grad_u, terms.sum_to_size(threshold.shape)


def prox(
    u: Tensor, threshold: Tensor, kind: str, bypass: int = 0, shape: Tensor | None = None
) -> Tensor:
    """Proximal operator of one layer with support selection.

    ``bypass`` entries of largest magnitude (ties included) that also exceed the threshold are kept
    as they are; the selection carries no gradient. ``shape`` goes with the kinds of `LEAST_SHAPES`.
    """
    if shape is not None:
        return folded_threshold(u, threshold, shape, LEAST_SHAPES[kind])
    magnitude = u if kind == "nonnegative" else u.abs()
    keep = ~(magnitude <= threshold)
    if kind == "hard":
        return torch.where(keep, u, torch.zeros_like(u))
    shrunk = shrink(u, threshold, kind)
    if bypass <= 0:
        return shrunk
    rank = magnitude.detach().topk(min(bypass, u.shape[-1]), dim=-1).values[..., -1:]
    return torch.where(keep & (magnitude >= rank), u, shrunk)


def _direction(a: UnrolledArguments, point: Tensor, layer: int) -> Tensor:
    """Gradient direction v of one layer at ``point``: (B, n)."""
    if a.gram is not None:
        assert a.linear is not None
        gram = a.gram[layer if a.gram.shape[0] > 1 else 0]
        return point @ gram - a.linear[layer if a.linear.shape[0] > 1 else 0]
    assert a.dictionary is not None and a.measurements is not None
    residual = point @ a.dictionary.mT - a.measurements
    if a.weight is None:
        return residual @ a.dictionary
    return residual @ a.weight[layer if a.weight.shape[0] > 1 else 0]


def _step(a: UnrolledArguments, direction: Tensor, layer: int) -> Tensor:
    """Step of one layer, broadcastable to (B, n)."""
    if a.step is not None:
        return a.step[layer]
    assert a.rule_weight is not None and a.rule_bias is not None
    norm = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    gate = torch.sigmoid(a.rule_weight[layer] * norm + a.rule_bias[layer])
    return a.rule_minimum + (a.rule_maximum - a.rule_minimum) * gate


def objective(a: UnrolledArguments, x: Tensor) -> Tensor:
    """LASSO objective F(x) = 1/2 ||x A^T - b||^2 + lambda ||x||_1 of x (..., B, n): (..., B)."""
    assert a.dictionary is not None and a.measurements is not None
    residual = x @ a.dictionary.mT - a.measurements
    return 0.5 * residual.square().sum(-1) + a.objective_weight * x.abs().sum(-1)


def objective_backward(
    a: UnrolledArguments, x: Tensor, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Gradients of `objective` with respect to those of x, A and b that are wanted."""
    tensors = (x, a.dictionary, a.measurements)
    inputs = [
        t.detach().requires_grad_(want)
        for t, want in zip(tensors, wanted, strict=True)
        if t is not None
    ]
    with torch.enable_grad():
        value = objective(a._replace(dictionary=inputs[1], measurements=inputs[2]), inputs[0])
    return torch.autograd.grad(value, [t for t in inputs if t.requires_grad], grad)


def unrolled(a: UnrolledArguments) -> tuple[Tensor, Tensor, Tensor]:
    """K layers of gradient step + proximal operator.

    Returns
    -------
    codes : (B, n)
    objective : (K + 1, B), or empty
    iterates : (K + 1, B, n), or empty
    """
    if a.gram is not None and a.linear is None:
        assert a.dictionary is not None and a.measurements is not None
        analysis = a.dictionary[None] if a.weight is None else a.weight
        a = a._replace(linear=multiply(a.measurements, analysis))
    x = a.threshold.new_zeros(a.batch, a.n_atoms) if a.initial is None else a.initial
    before = x if a.previous is None else a.previous
    iterates = [x]
    for layer in range(a.n_layers):
        y = x if a.momentum is None else x + a.momentum[layer] * (x - before)
        direction = _direction(a, x if a.heavy_ball else y, layer)
        update = _step(a, direction, layer) * direction
        u = y - update if a.skip else -update
        bypass = a.bypass[layer] if a.bypass else 0
        shape = None if a.prox_shape is None else a.prox_shape[layer]
        before, x = x, prox(u, a.threshold[layer], a.prox, bypass, shape)
        iterates.append(x)
    values = [objective(a, x) for x in iterates] if a.with_objective else []
    none = a.threshold.new_empty(0)
    return (
        x,
        torch.stack(values) if a.with_objective else none,
        torch.stack(iterates) if a.with_iterates else none,
    )


def unrolled_backward(
    grad_codes: Tensor | None,
    grad_objective: Tensor | None,
    grad_iterates: Tensor | None,
    a: UnrolledArguments,
    needs: list[bool],
    *,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """Gradients of `unrolled` by PyTorch's own autograd.

    ``needs`` has one entry per differentiable argument; where it is False the result is an empty
    tensor. With ``create_graph`` the arguments keep their history, for double backward.
    """
    a = a.differentiated(needs)
    with torch.enable_grad():
        inputs = [
            t if t is None or create_graph else t.detach().requires_grad_(need)
            for t, need in zip(a.differentiable, needs, strict=True)
        ]
        outputs = unrolled(UnrolledArguments(*inputs, *a[N_DIFFERENTIABLE:]))  # type: ignore[arg-type]
        grads = (grad_codes, grad_objective, grad_iterates)
        used = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
        wanted = [t for t, need in zip(inputs, needs, strict=True) if need and t is not None]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in used],
                wanted,
                [g for _, g in used],
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
        )
    empty = a.threshold.new_empty(0)
    return tuple(
        next(found) if need and t is not None else empty
        for t, need in zip(inputs, needs, strict=True)
    )
