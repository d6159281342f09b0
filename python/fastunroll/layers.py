"""What the layers of every form share: step rule, and arguments brought to common shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastunroll._checks import (
    check_choice,
    check_like,
    check_number,
    check_positive_int,
    check_shape,
    check_tensor,
)
from fastunroll.ops.arguments import LEAST_SHAPES, PROX_KINDS, SELECTIVE


@dataclass(frozen=True)
class GradientNormStep:
    """Step rule of LPG-Net: alpha_k = minimum + (maximum - minimum) sigmoid(w_k s_k + c_k).

    s_k is the l2 norm of the gradient direction of the sample at layer k. Source: Wang, Xu, Zhang,
    "A Learnable Proximal Gradient Unrolling Network for Sparse Learning".

    Attributes
    ----------
    weight : (n_layers,)
        w_k.
    bias : (n_layers,)
        c_k.
    minimum, maximum : float
        Range of the step.
    """

    weight: Tensor
    bias: Tensor
    minimum: float
    maximum: float


def layer_arguments(
    like: Tensor,
    n: int,
    n_layers: int | None,
    n_weights: int,
    step: Tensor | float | GradientNormStep,
    threshold: Tensor | float,
    momentum: Tensor | None,
    prox: str,
    prox_shape: Tensor | float | None,
    bypass: Sequence[int],
    initial: Tensor | None,
    previous: Tensor | None,
) -> dict[str, Any]:
    """Check the arguments that every form shares and bring them to the operator's shapes.

    ``like`` (batch, ...) gives the batch, dtype and device.
    """
    batch = like.shape[0]
    rule = step if isinstance(step, GradientNormStep) else None
    if rule:
        for name, value in (("step.weight", rule.weight), ("step.bias", rule.bias)):
            check_like(name, check_tensor(name, value, (1,)), "measurements", like)
    prox = check_choice("prox", prox, PROX_KINDS)
    bypass = _checked_counts(bypass)
    if any(bypass) and prox not in SELECTIVE:
        raise ValueError(f"bypass must be 0 with prox {prox!r}, got {bypass}")
    sizes = {
        "n_layers": None if n_layers is None else check_positive_int("n_layers", n_layers),
        "weight": n_weights if n_weights > 1 else None,
        "momentum": None if momentum is None else len(check_tensor("momentum", momentum, (1,))),
        "bypass": len(bypass) or None,
        "step": len(rule.weight) if rule else _leading(step),
        "threshold": _leading(threshold),
        "prox_shape": _leading(prox_shape),
    }
    known = {name: size for name, size in sizes.items() if size is not None}
    if not known:
        raise ValueError("n_layers must be given: no other argument tells the number of layers")
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name}: {size}" for name, size in known.items())
        raise ValueError(f"the arguments disagree on the number of layers ({told})")
    layers = next(iter(known.values()))
    for name, start in (("initial", initial), ("previous", previous)):
        if start is not None:
            check_like(name, check_tensor(name, start, (1, 2)), "measurements", like)
            expected = (n,) if start.dim() == 1 and batch == 1 else (batch, n)
            check_shape(name, start, expected, "batch, n_atoms")
    if previous is not None and previous.requires_grad and torch.is_grad_enabled():
        raise ValueError("previous must not require a gradient: none is computed for it")
    if momentum is not None:
        check_like("momentum", momentum, "measurements", like)
    if rule:
        check_number("step.minimum", rule.minimum, minimum=0.0)
        check_number("step.maximum", rule.maximum, minimum=rule.minimum)
        check_shape("step.weight", rule.weight, (layers,), "n_layers")
        check_shape("step.bias", rule.bias, (layers,), "n_layers")
    return {
        "step": None if rule else _per_layer("step", step, layers, batch, n, like),
        "threshold": _per_layer("threshold", threshold, layers, batch, n, like),
        "rule_weight": rule.weight if rule else None,
        "rule_bias": rule.bias if rule else None,
        "rule_minimum": rule.minimum if rule else 0.0,
        "rule_maximum": rule.maximum if rule else 1.0,
        "momentum": momentum,
        "prox": prox,
        "prox_shape": _prox_shape(prox_shape, prox, layers, like),
        "bypass": bypass,
        "initial": initial[None] if initial is not None and initial.dim() == 1 else initial,
        "previous": previous[None] if previous is not None and previous.dim() == 1 else previous,
    }


def _checked_counts(bypass: object) -> tuple[int, ...]:
    """Counts of support selection as a tuple."""
    if isinstance(bypass, str) or not isinstance(bypass, Sequence):
        raise TypeError(f"bypass must be a sequence of ints, got {type(bypass).__name__}")
    if not all(isinstance(count, int) for count in bypass):
        raise TypeError(f"bypass must hold ints, got {tuple(bypass)}")
    if any(count < 0 for count in bypass):
        raise ValueError(f"bypass must hold counts of at least 0, got {tuple(bypass)}")
    return tuple(bypass)


def _prox_shape(value: object, prox: str, layers: int, like: Tensor) -> Tensor | None:
    """Bring the shape of a firm or SCAD shrinkage to (layers,)."""
    if not isinstance(value, Tensor):
        number = check_prox_shape(prox, value)
        return None if number is None else like.new_full((layers,), number)
    if prox not in LEAST_SHAPES:
        raise ValueError(f"prox_shape must be None with prox {prox!r}")
    check_like("prox_shape", check_tensor("prox_shape", value, (0, 1)), "measurements", like)
    if value.numel() != 1:
        check_shape("prox_shape", value, (layers,), "n_layers")
    return value.expand(layers)


def check_prox_shape(prox: str, value: object) -> float | None:
    """Return the shape of a proximal operator if it has one and ``value`` fits, else None."""
    least = LEAST_SHAPES.get(prox)
    if least is None:
        if value is not None:
            raise ValueError(f"prox_shape must be None with prox {prox!r}")
        return None
    if value is None:
        raise ValueError(f"prox_shape must be given with prox {prox!r}")
    return check_number("prox_shape", value, minimum=least, exclusive=True)


def _leading(value: object) -> int | None:
    """Number of layers that a parameter tells, if it does."""
    if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] != 1:
        return value.shape[0]
    return None


def _per_layer(name: str, value: object, layers: int, batch: int, n: int, like: Tensor) -> Tensor:
    """Bring a step or threshold to (layers, 1 or batch, 1 or n)."""
    if not isinstance(value, Tensor):
        number = check_number(name, value, minimum=0.0, exclusive=name == "step")
        return like.new_full((layers, 1, 1), number)
    check_like(name, check_tensor(name, value, (0, 1, 2, 3)), "measurements", like)
    if value.dim() == 3:
        shaped = value
    elif value.dim() == 2:
        shaped = value[:, None, :]
    else:
        shaped = value.reshape(-1, 1, 1)
    fits = (
        shaped.shape[0] in (1, layers)
        and shaped.shape[1] in (1, batch)
        and shaped.shape[2] in (1, n)
    )
    if not fits:
        raise ValueError(
            f"{name} must be a scalar, ({layers},), ({layers}, {n}) or ({layers}, {batch}, 1), "
            f"got shape {tuple(value.shape)}"
        )
    return shaped if shaped.shape[0] == layers else shaped.expand(layers, -1, -1)
