r"""Analytic weights of a convolutional dictionary, in the Fourier domain.

A code holds one map x_k per filter a_k, and b = sum_k a_k * x_k with circular convolutions. A A^T
is then itself a circular convolution, which the Fourier transform makes diagonal:

    w_k^(f) = a_k^(f) / S(f) / mean_f (|a_k^(f)|^2 / S(f)),   S(f) = sum_k |a_k^(f)|^2

These are the weights of `analytic_weight` for the explicit matrix of all shifts. They are as large
as the signal, where the approximation of Liu et al. keeps the size of the filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastunroll._checks import check_positive_int, check_tensor


@torch.no_grad()
def convolutional_analytic_weight(filters: Tensor, signal_shape: Sequence[int]) -> Tensor:
    """Analytic weights of a circular convolutional dictionary, in one or two dimensions.

    The atoms are all circular shifts of the filters, so w_k belongs to the unshifted filter a_k,
    whose first entry lies at the origin; the weights of its shifts are the shifts of w_k. Where
    no filter has energy at some frequency, the pseudo-inverse leaves that frequency out. Computed
    in float64.

    Parameters
    ----------
    filters : (n_filters, length) or (n_filters, height, width)
        a_k, float32 or float64, none of them zero.
    signal_shape : sequence of int
        Shape of b without the batch: ``(length,)`` or ``(height, width)``, at least that of a
        filter.

    Returns
    -------
    Tensor
        (n_filters, *signal_shape), with the dtype of the filters.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; the message names it.

    References
    ----------
    Liu, Chen, Wang, Yin, "ALISTA: Analytic weights are as good as learned weights in LISTA",
    ICLR 2019.
    """
    size = tuple(check_positive_int("signal_shape", length) for length in signal_shape)
    _check_filters(filters, size)
    axes = tuple(range(1, filters.dim()))
    spectra = torch.fft.fftn(filters.double(), s=size, dim=axes)
    energy = spectra.abs().square().sum(dim=0)
    tolerance = (len(filters) * energy.numel() * torch.finfo(filters.dtype).eps) ** 2
    kept = energy > tolerance * energy.max()
    weight = torch.where(kept, spectra / energy, 0)
    scale = (spectra.conj() * weight).real.mean(dim=axes, keepdim=True)
    result: Tensor = torch.fft.ifftn(weight / scale, dim=axes).real.to(filters.dtype)
    return result


def _check_filters(filters: object, size: tuple[int, ...]) -> None:
    """Require finite, non-zero filters that fit a signal of this size."""
    filters = check_tensor("filters", filters, (2, 3))
    if filters.numel() == 0:
        raise ValueError(f"filters must not be empty, got shape {tuple(filters.shape)}")
    support = tuple(filters.shape[1:])
    fits = len(support) == len(size) and all(f <= s for f, s in zip(support, size, strict=True))
    if not fits:
        raise ValueError(
            f"signal_shape must have {len(support)} number(s), not below the filters' shape "
            f"{support}, got {size}"
        )
    if not bool(torch.isfinite(filters).all()):
        raise ValueError("filters contains NaN or Inf")
    zero = (filters == 0).flatten(1).all(dim=1).nonzero().flatten()
    if zero.numel():
        raise ValueError(f"filters must be non-zero, but filter {int(zero[0])} is zero")
