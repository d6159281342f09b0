"""Learned thresholds and steps: what a negative one means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LEAST_STEP = 1e-3
"""A learned step below it acts as it does."""


class _AtLeast(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, minimum: float) -> Tensor:
        return value.clamp(min=minimum)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        value, ctx.minimum = inputs
        ctx.save_for_backward(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (value,) = ctx.saved_tensors
        return torch.where((value > ctx.minimum) | (grad < 0), grad, torch.zeros_like(grad)), None


def at_least(value: Tensor, minimum: float) -> Tensor:
    """Return max(value, minimum), with a way back for a parameter that training pushed below.

    The gradient is the one at the maximum, but where the value is not above the minimum a part that
    would push it further down is dropped. A plain maximum would have no gradient there at all, and
    a layer that once lost its threshold could never get it back.
    """
    bounded: Tensor = _AtLeast.apply(value, minimum)  # type: ignore[no-untyped-call]
    return bounded


def at_least_zero(threshold: Tensor) -> Tensor:
    """`at_least` 0: a threshold that training made negative acts as 0, the identity.

    The hard, firm and SCAD shrinkages have no slope in a threshold of 0, so there it stays.
    """
    return at_least(threshold, 0.0)
