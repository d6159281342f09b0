"""Public functions: every argument is checked here, once, before an operator runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastunroll import planner
from fastunroll._checks import check_choice, check_like, check_number, check_tensor, check_threshold
from fastunroll.layers import GradientNormStep, layer_arguments
from fastunroll.ops import autograd, cpu
from fastunroll.ops.arguments import UnrolledArguments
from fastunroll.prepared import (
    FORMS,
    PreparedDictionary,
    check_weight,
    gram_operands,
    runs_natively,
)


class UnrolledResult(NamedTuple):
    """Result of an unrolled recursion (1-D measurements drop the batch axis everywhere)."""

    codes: Tensor
    """Codes x_K: (batch, n_atoms)."""
    objective: Tensor | None
    """F(x_k) for k = 0..K where asked for: (n_layers + 1, batch)."""
    iterates: Tensor | None
    """x_k for k = 0..K where asked for: (n_layers + 1, batch, n_atoms)."""


def soft_threshold(u: Tensor, threshold: Tensor | float, *, nonnegative: bool = False) -> Tensor:
    """Soft threshold S_t(u) = sign(u) max(|u| - t, 0), the proximal operator of t ||.||_1.

    Parameters
    ----------
    u : (batch, n) or (n,)
        Input, float32 or float64; on a GPU also float16 or bfloat16.
    threshold : float or tensor
        t: a scalar, one per atom ``(n,)`` or one per sample ``(batch, 1)``.
    nonnegative : bool
        Non-negative codes: max(u - t, 0).

    Returns
    -------
    Tensor
        Same shape as ``u``. Value and derivative are 0 at |u| = t; NaN in gives NaN out.

    Raises
    ------
    TypeError
        If ``u`` or ``threshold`` has the wrong type or dtype.
    ValueError
        If the threshold is negative or not finite, or its shape does not fit.
    """
    u = check_tensor("u", u, (1, 2), half=True)
    kind = "nonnegative" if nonnegative else "soft"
    return autograd.shrink(u, check_threshold("threshold", threshold, u), kind)


def smooth_soft_threshold(u: Tensor, threshold: Tensor | float) -> Tensor:
    """Smooth soft threshold s_t(u) = log(1 + e^(u - t)) - log(1 + e^(-u - t)).

    Odd, strictly increasing, and u - t for u far above t. In float64, value, first and second
    derivatives are right to about 4 units in the last place for thresholds up to 20 and any ``u``.
    Source: Shah et al., "Optimization Guarantees of Unfolded ISTA and ADMM Networks With Smooth
    Soft-Thresholding" (arXiv 2309.06195).

    Parameters
    ----------
    u, threshold
        As in `soft_threshold`.

    Returns
    -------
    Tensor
        Same shape as ``u``; NaN in gives NaN out.

    Raises
    ------
    TypeError, ValueError
        As `soft_threshold`.
    """
    u = check_tensor("u", u, (1, 2), half=True)
    return autograd.shrink(u, check_threshold("threshold", threshold, u), "smooth")


def unrolled_prox_gradient(
    measurements: Tensor,
    dictionary: Tensor | PreparedDictionary,
    weight: Tensor | None = None,
    *,
    step: Tensor | float | GradientNormStep,
    threshold: Tensor | float,
    n_layers: int | None = None,
    momentum: Tensor | None = None,
    heavy_ball: bool = False,
    prox: str = "soft",
    prox_shape: Tensor | float | None = None,
    bypass: Sequence[int] = (),
    initial: Tensor | None = None,
    previous: Tensor | None = None,
    objective_weight: float | None = None,
    iterates: bool = False,
    form: str = "auto",
) -> UnrolledResult:
    """Run K layers of *gradient step + shrinkage* as one fused, differentiable operator.

    One layer computes, from x_0 = ``initial`` (0 by default),

        y = x_k + momentum_k (x_k - x_{k-1})
        x_{k+1} = prox(y - step_k (y A^T - b) W; threshold_k)

    Parameters
    ----------
    measurements : (batch, m) or (m,)
        b. On a GPU, those in float16 or bfloat16 give codes and iterates in that type, computed in
        float32, the type of all other arguments.
    dictionary : (m, n) or PreparedDictionary
        A, or the result of `prepare`, which is faster when it is used again and again.
    weight : (m, n) or (n_layers, m, n), optional
        Analysis weights W; the dictionary by default, which gives the true gradient.
    step : float, GradientNormStep or tensor
        ``(K,)`` one per layer, ``(K, n)`` one per layer and atom, ``(K, batch, 1)`` one per layer
        and sample; a leading axis of 1 is repeated over the layers. Must be positive.
    threshold : float or tensor
        As ``step``; must not be negative.
    n_layers : int, optional
        K; needed only where no other argument tells it.
    momentum : (K,), optional
        Nesterov momentum, or heavy-ball momentum with ``heavy_ball=True`` (the gradient is then
        taken at x_k instead of y).
    prox : {"soft", "nonnegative", "hard", "smooth", "firm", "scad"}
        Proximal operator: soft and hard threshold; ``"smooth"``, see `smooth_soft_threshold`, which
        makes the codes dense; ``"firm"`` shrinkage, of the minimax concave penalty (Zhang 2010),
        and ``"scad"`` shrinkage (Fan, Li 2001), which leave entries of more than ``prox_shape``
        times their threshold as they are.
    prox_shape : float or tensor, optional
        Shape of the firm (gamma > 1) or SCAD (a > 2) shrinkage: a scalar or ``(K,)``; only with
        these two, and required there.
    bypass : sequence of K ints
        Support selection, with the soft, non-negative and hard threshold: in layer k, those of the
        ``bypass[k]`` entries of largest magnitude (ties at the last rank included) that exceed
        their threshold are kept unshrunk.
    initial, previous : (batch, n), optional
        Warm start x_0, and x_{-1} for the momentum of the first layer (x_0 by default).
    objective_weight : float, optional
        lambda; where given, F(x_k) = 1/2 ||x_k A^T - b||^2 + lambda ||x_k||_1 of every iterate is
        returned, differentiable.
    iterates : bool
        Return every iterate, differentiable.
    form : {"auto", "gram", "factored", "mixed"}
        How the gradient is computed; ignored for a `PreparedDictionary`, which has its own.
        ``"mixed"`` runs forward in Gram form and backward in factored form, so that no gradient of
        a Gram matrix is formed; without gradients for A, W and b it is ``"gram"``.

    Returns
    -------
    UnrolledResult

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    prepared = dictionary if isinstance(dictionary, PreparedDictionary) else None
    options: tuple[object, ...] = (
        *(weight, step, threshold, n_layers, momentum, heavy_ball, prox, prox_shape),
        *(bypass, initial, previous, objective_weight, iterates),
    )
    if prepared is not None:
        codes = prepared.last_call.run(options, measurements)
        if codes is not None:
            return UnrolledResult(codes, None, None)
    flat = isinstance(measurements, Tensor) and measurements.dim() == 1
    b = check_tensor("measurements", measurements, (1, 2), half=True)
    b = b.float() if b.dtype.itemsize < 4 else b
    b = b[None] if flat else b
    gram: Tensor | None = None
    packed: tuple[Tensor, ...] = ()
    if prepared is not None:
        if weight is not None:
            raise ValueError("weight must be given to prepare(), not beside a PreparedDictionary")
        matrix, weight = prepared.dictionary, prepared.weight
        gram, packed, form = prepared.gram, prepared.packed, prepared.form
    else:
        matrix = check_tensor("dictionary", dictionary, (2,))
        weight = None if weight is None else check_weight(weight, matrix)
        check_choice("form", form, (*FORMS, "mixed"))
    check_like("measurements", b, "dictionary", matrix)
    m, n = matrix.shape
    if 0 in (m, n):
        raise ValueError(f"dictionary must not be empty, got shape ({m}, {n})")
    if b.shape[1] != m:
        raise ValueError(
            f"measurements must have {m} columns to fit the dictionary's shape ({m}, {n}), "
            f"got shape {tuple(measurements.shape)}"
        )
    n_weights = 1 if weight is None else weight.shape[0]
    layer = layer_arguments(
        *(b, n, n_layers, n_weights, step, threshold, momentum),
        *(prox, prox_shape, bypass, initial, previous),
    )
    n_layers = layer["threshold"].shape[0]
    if form == "auto":
        learns = autograd.needs_grad((matrix, weight))
        plan = planner.plan(
            *(b.shape[0], (m, n), n_layers),
            n_weights=n_weights,
            symmetric=weight is None,
            learns_matrices=learns,
            device=b.device.type,
        )
        form = plan.form
    linear = None
    with_objective = objective_weight is not None
    if form == "mixed":
        with torch.no_grad():
            if weight is None and runs_natively(matrix):
                packed = cpu.pack_with_gram(matrix, objective=with_objective)
            else:
                linear, gram = gram_operands(b, matrix, weight, gram)
    elif form == "gram":
        linear, gram = gram_operands(b, matrix, weight, gram)
    lam = check_number("objective_weight", objective_weight, minimum=0.0) if with_objective else 0.0
    arguments = UnrolledArguments(
        linear=linear,
        gram=gram,
        dictionary=matrix if linear is None or with_objective else None,
        weight=weight if linear is None else None,
        measurements=b if linear is None or with_objective else None,
        heavy_ball=heavy_ball,
        objective_weight=lam,
        with_objective=with_objective,
        with_iterates=iterates,
        packed=packed,
        **layer,
    )
    result = _run(arguments, flat)
    if prepared is not None and isinstance(bypass, tuple):
        given = (step.weight, step.bias) if isinstance(step, GradientNormStep) else (step,)
        tensors = [t for t in (*given, threshold, momentum, prox_shape) if isinstance(t, Tensor)]
        prepared.last_call.remember(options, tensors, arguments)
    if measurements.dtype == b.dtype:
        return result
    dtype, every = measurements.dtype, result.iterates
    return result._replace(
        codes=result.codes.to(dtype), iterates=None if every is None else every.to(dtype)
    )


def unrolled_gram(
    linear: Tensor,
    gram: Tensor,
    *,
    step: Tensor | float,
    threshold: Tensor | float,
    n_layers: int | None = None,
    skip: bool = True,
    momentum: Tensor | None = None,
    prox: str = "soft",
    prox_shape: Tensor | float | None = None,
    bypass: Sequence[int] = (),
    initial: Tensor | None = None,
    iterates: bool = False,
) -> UnrolledResult:
    """Run K layers in Gram form, x_{k+1} = prox(skip x_k + step_k (c_k - x_k G_k); threshold_k).

    With ``skip=False``, ``step=1`` and G_k = -W2_k this is the original LISTA,
    x_{k+1} = S(c_k + x_k W2_k) (Gregor, LeCun 2010).

    Parameters
    ----------
    linear : (batch, n), (n,) or (K, batch, n)
        c.
    gram : (n, n) or (K, n, n)
        G.
    step, threshold, n_layers, momentum, prox, prox_shape, bypass, initial, iterates
        As in `unrolled_prox_gradient`.

    Returns
    -------
    UnrolledResult

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    linear = check_tensor("linear", linear, (1, 2, 3))
    flat = linear.dim() == 1
    c = linear if linear.dim() == 3 else linear[None, None] if flat else linear[None]
    check_like("gram", check_tensor("gram", gram, (2, 3)), "linear", linear)
    n = c.shape[-1]
    if tuple(gram.shape[-2:]) != (n, n) or 0 in gram.shape:
        raise ValueError(
            f"gram must end in ({n}, {n}) to fit linear of shape {tuple(linear.shape)}, "
            f"got shape {tuple(gram.shape)}"
        )
    gram = gram if gram.dim() == 3 else gram[None]
    if isinstance(step, GradientNormStep):
        raise TypeError("step must be a number or a tensor")
    layer = layer_arguments(
        *(c[0], n, n_layers, gram.shape[0], step, threshold, momentum),
        *(prox, prox_shape, bypass, initial, None),
    )
    if c.shape[0] not in (1, layer["threshold"].shape[0]):
        raise ValueError(
            f"linear must hold 1 or {layer['threshold'].shape[0]} layers, "
            f"got shape {tuple(linear.shape)}"
        )
    return _run(
        UnrolledArguments(
            linear=c,
            gram=gram,
            dictionary=None,
            weight=None,
            measurements=None,
            skip=skip,
            with_iterates=iterates,
            **layer,
        ),
        flat,
    )


def prox_gradient_step(
    codes: Tensor,
    measurements: Tensor,
    dictionary: Tensor | PreparedDictionary,
    weight: Tensor | None = None,
    *,
    step: Tensor | float,
    threshold: Tensor | float,
    prox: str = "soft",
    prox_shape: Tensor | float | None = None,
    bypass: int = 0,
    form: str = "auto",
) -> Tensor:
    """One layer: prox(x - step (x A^T - b) W; threshold).

    Parameters
    ----------
    codes : (batch, n) or (n,)
        x.
    measurements, dictionary, weight, prox, prox_shape, form
        As in `unrolled_prox_gradient`.
    step, threshold : float or tensor
        A scalar, one per atom ``(n,)`` or one per sample ``(batch, 1)``.
    bypass : int
        Support selection: number of entries kept unshrunk.

    Returns
    -------
    Tensor
        (batch, n) or (n,).

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    codes = check_tensor("codes", codes, (1, 2))
    check_tensor("measurements", measurements, (codes.dim(),))

    def one_layer(value: Tensor | float) -> Tensor | float:
        return value[None] if isinstance(value, Tensor) else value

    return unrolled_prox_gradient(
        measurements,
        dictionary,
        weight,
        step=one_layer(step),
        threshold=one_layer(threshold),
        n_layers=1,
        prox=prox,
        prox_shape=prox_shape,
        bypass=(bypass,) if bypass else (),
        initial=codes,
        form=form,
    ).codes


def _run(arguments: UnrolledArguments, flat: bool) -> UnrolledResult:
    """Run the operator and give the result the axes of its input."""
    device = arguments.threshold.device.type
    if torch.is_autocast_enabled(device):
        # A rounded forward product stops the recursion early, so autocast does not apply to it.
        with torch.autocast(device, enabled=False):
            return _run(arguments, flat)
    codes, objective, iterates = autograd.unrolled(arguments)
    if flat:
        codes = codes[0]
        objective, iterates = (None if t is None else t[:, 0] for t in (objective, iterates))
    return UnrolledResult(codes, objective, iterates)
