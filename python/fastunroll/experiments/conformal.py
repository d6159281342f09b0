"""Intervals around estimates, and how often they hold the truth."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from fastunroll._checks import check_tensor


def conformal_half_width(residuals: Tensor, level: float) -> float:
    """Half width of the split conformal interval, from residuals of a calibration set.

    It is the ceil((n + 1) level)-th smallest |residual|; inf where n is too small. For exchangeable
    residuals the interval estimate +- half width holds the truth with probability of at least
    ``level``, whatever their distribution.

    Parameters
    ----------
    residuals : (n,)
        Estimate less truth.
    level : float
        Nominal coverage, in (0, 1).

    Raises
    ------
    ValueError
        If ``level`` is not in (0, 1), or ``residuals`` is empty.

    References
    ----------
    Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-free predictive inference for
    regression", JASA 113, 2018.
    """
    _check(residuals, level)
    rank = math.ceil((len(residuals) + 1) * level)
    if rank > len(residuals):
        return math.inf
    return float(residuals.abs().kthvalue(rank).values)


def gaussian_half_width(residuals: Tensor, level: float) -> float:
    """Half width of the interval for normal residuals of mean 0: z times their root mean square.

    Arguments and errors as in `conformal_half_width`.
    """
    _check(residuals, level)
    return NormalDist().inv_cdf((1 + level) / 2) * float(residuals.square().mean().sqrt())


def coverage(residuals: Tensor, half_width: float) -> float:
    """Share of the residuals ``(n,)`` within an interval."""
    return float((residuals.abs() <= half_width).to(torch.float64).mean())


def _check(residuals: Tensor, level: float) -> None:
    """Require some residuals and a level in (0, 1)."""
    if len(check_tensor("residuals", residuals, (1,))) == 0:
        raise ValueError("residuals must not be empty")
    if not 0 < level < 1:
        raise ValueError(f"level must be greater than 0 and less than 1, got {level}")
