"""Learned thresholds: what a negative one means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _AtLeastZero(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(threshold: Tensor) -> Tensor:
        return threshold.clamp(min=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (threshold,) = ctx.saved_tensors
        return torch.where((threshold > 0) | (grad < 0), grad, torch.zeros_like(grad))


def at_least_zero(threshold: Tensor) -> Tensor:
    """Return max(threshold, 0): a threshold that training made negative acts as 0, the identity.

    The gradient is the one at max(threshold, 0), but where the threshold is not positive a part
    that would push it further down is dropped. A plain maximum would have no gradient there at all,
    and a layer that once lost its threshold could never get it back.
    """
    bounded: Tensor = _AtLeastZero.apply(threshold)  # type: ignore[no-untyped-call]
    return bounded
