r"""The unrolled encoder of a convolutional dictionary, with a backward pass that saves memory.

One layer computes, with the analysis filters B, the synthesis filters C and one threshold per layer
or per layer and filter,

    z_{k+1} = prox(z_k - B^T * (C * z_k - x); threshold_k)

Between the passes the codes of every ceil(sqrt(K))-th layer are kept; the backward pass computes
the others again (Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastunroll._checks import check_number
from fastunroll.backend import forced_backend
from fastunroll.dictionary.convolution import Convolution
from fastunroll.functional import UnrolledResult
from fastunroll.ops import autograd


def unroll_convolutional(
    convolution: Convolution,
    b: Tensor,
    analysis: Tensor,
    synthesis: Tensor,
    thresholds: Tensor,
    *,
    prox: str = "soft",
    objective_weight: float | None = None,
    iterates: bool = False,
) -> UnrolledResult:
    """Encode signals, from z_0 = 0, with one layer for each row of ``thresholds``.

    The codes are differentiable once in every tensor. Autocast does not apply.

    Parameters
    ----------
    convolution : Convolution
        Where the filters lie.
    b : (batch, channels, *size)
        x.
    analysis, synthesis : (n_filters, channels * height * width)
        B, which holds the step size, and C.
    thresholds : (n_layers, 1 or n_filters)
        At least 0.
    prox : {"soft", "nonnegative", "hard"}
        Shrinkage; the hard one carries no gradient to the thresholds.
    objective_weight : float, optional
        lambda of F(z_k) = 1/2 ||C * z_k - x||^2 + lambda ||z_k||_1.
    iterates : bool
        Return every z_k.

    Returns
    -------
    UnrolledResult
        Codes (batch, n_filters, *places); objective (n_layers + 1, batch) and iterates
        (n_layers + 1, batch, n_filters, *places) where asked for.

    Raises
    ------
    TypeError, ValueError
        If ``b`` or ``objective_weight`` does not fit.
    """
    convolution.check("b", b, synthesis)
    places = convolution.places(b.shape[2:])

    def maps(codes: Tensor) -> Tensor:
        return codes.reshape(len(b), *places, -1).movedim(-1, 1)

    with torch.autocast(b.device.type, enabled=False):
        if objective_weight is None and not iterates:
            codes = _encode(b, analysis, synthesis, thresholds, None, convolution, prox)
            return UnrolledResult(maps(codes), None, None)
        path = [b.new_zeros(len(b) * math.prod(places), len(synthesis))]
        for threshold in thresholds.split(1):
            path.append(_encode(b, analysis, synthesis, threshold, path[-1], convolution, prox))
        objective = None
        if objective_weight is not None:
            check_number("objective_weight", objective_weight, minimum=0.0)
            values = [
                0.5 * _residual(codes, b, synthesis, convolution).square().flatten(1).sum(dim=1)
                + objective_weight * codes.abs().reshape(len(b), -1).sum(dim=1)
                for codes in path
            ]
            objective = torch.stack(values)
    stacked = torch.stack([maps(codes) for codes in path]) if iterates else None
    return UnrolledResult(maps(path[-1]), objective, stacked)


def _encode(
    x: Tensor,
    analysis: Tensor,
    synthesis: Tensor,
    thresholds: Tensor,
    codes: Tensor | None,
    convolution: Convolution,
    prox: str,
) -> Tensor:
    """Run layers from codes (batch * places, n_filters), where None stands for 0."""
    tensors = (x, analysis, synthesis, thresholds, codes)
    if forced_backend() != "reference" and autograd.needs_grad(tensors):
        encoded: Tensor = _Encoder.apply(*tensors, convolution, prox)  # type: ignore[no-untyped-call]
        return encoded
    for threshold in thresholds:
        patches = convolution.unfold(_residual(codes, x, synthesis, convolution))
        codes = _shrink(_step(codes, patches, analysis), threshold, prox)
    assert codes is not None
    return codes


class _Encoder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, analysis, synthesis, thresholds, codes, convolution, prox = arguments
        kept = []
        for part in thresholds.split(_segment(thresholds)):
            kept.append(codes)
            codes = _encode(x, analysis, synthesis, part, codes, convolution, prox)
        ctx.save_for_backward(x, analysis, synthesis, thresholds, *kept, codes)
        ctx.convolution, ctx.prox = convolution, prox
        result: Tensor = codes
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, analysis, synthesis, thresholds, *kept, last = ctx.saved_tensors
        convolution: Convolution = ctx.convolution
        for_x, for_analysis, for_synthesis, for_thresholds = map(
            torch.zeros_like, (x, analysis, synthesis, thresholds)
        )
        with torch.autocast(x.device.type, enabled=False):
            for k, before, patches, after in _layers_back(
                x, analysis, synthesis, thresholds, kept, last, convolution, ctx.prox
            ):
                # The slope of every shrinkage is 1 where the code is not 0, and 0 elsewhere.
                grad = torch.ops.aten.softshrink_backward(grad, after, 0.0)
                if ctx.needs_input_grad[3] and ctx.prox != "hard":
                    by_filter = -(after.sign() * grad).sum(dim=0)
                    for_thresholds[k] = by_filter.sum_to_size(for_thresholds[k].shape)
                for_analysis.addmm_(grad.mT, patches, alpha=-1)
                spread = convolution.fold(grad, analysis, x)
                for_x += spread
                if before is not None:  # else C * z_k = 0 for all C
                    patches = convolution.unfold(spread)
                    for_synthesis.addmm_(before.mT, patches, alpha=-1)
                    grad.addmm_(patches, synthesis.mT, alpha=-1)
        found = (for_x, for_analysis, for_synthesis, for_thresholds, grad, None, None)
        needs = ctx.needs_input_grad
        return tuple(g if need else None for g, need in zip(found, needs, strict=True))


def _segment(thresholds: Tensor) -> int:
    """Layers between two codes that are kept: ceil(sqrt(K))."""
    return math.isqrt(len(thresholds) - 1) + 1


def _layers_back(
    x: Tensor,
    analysis: Tensor,
    synthesis: Tensor,
    thresholds: Tensor,
    kept: Sequence[Tensor | None],
    last: Tensor,
    convolution: Convolution,
    prox: str,
) -> Iterator[tuple[int, Tensor | None, Tensor, Tensor]]:
    """k, z_k, the patches of its residual, and z_{k+1}, from the last layer to the first."""
    segment = _segment(thresholds)
    for first, codes in reversed(list(enumerate(kept))):
        layers = range(first * segment, min((first + 1) * segment, len(thresholds)))
        states: list[tuple[Tensor | None, Tensor]] = []
        for k in layers:
            patches = convolution.unfold(_residual(codes, x, synthesis, convolution))
            states.append((codes, patches))
            if k < layers[-1]:
                codes = _shrink(_step(codes, patches, analysis), thresholds[k], prox)
        for k in reversed(layers):
            before, patches = states.pop()
            yield k, before, patches, last
            if before is not None:
                last = before


def _residual(
    codes: Tensor | None, x: Tensor, synthesis: Tensor, convolution: Convolution
) -> Tensor:
    """C * z - x."""
    return -x if codes is None else convolution.fold(codes, synthesis, x).sub_(x)


def _step(codes: Tensor | None, patches: Tensor, analysis: Tensor) -> Tensor:
    """Z - B^T * r, for the patches of r."""
    if codes is None:
        return -patches @ analysis.mT
    return torch.addmm(codes, patches, analysis.mT, alpha=-1)


def _shrink(u: Tensor, threshold: Tensor, prox: str) -> Tensor:
    """One of the proximal operators, by the native kernel where it has it."""
    if prox == "hard":
        return u * (u.abs() > threshold)
    return autograd.shrink(u, threshold, prox)
