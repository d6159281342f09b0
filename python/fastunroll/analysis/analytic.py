"""Analytic weights of a dictionary, and its symmetric form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary

_SMALLEST_PIVOT = 1e-4
"""Ratio of Cholesky pivots below which A A^T counts as ill-conditioned, for float64."""


class SymmetricForm(NamedTuple):
    """Dictionary whose analytic weights are its own atoms, made by `symmetric_preconditioner`."""

    preconditioner: Tensor
    """P = (A A^T)^(-1/2): (n_measurements, n_measurements), symmetric."""
    dictionary: Tensor
    """D = P A diag(scale)^-1 with unit columns: (n_measurements, n_atoms)."""
    scale: Tensor
    """Norms of the columns of P A: (n_atoms,)."""


@torch.no_grad()
def analytic_weight(dictionary: Tensor) -> Tensor:
    """Analytic weights of ALISTA: the W of smallest ||W^T A||_F^2 with w_j^T a_j = 1 for all j.

    Its columns have the closed form

        w_j = (A A^T)^-1 a_j / (a_j^T (A A^T)^-1 a_j)

    with the pseudo-inverse where the rows of A depend on one another, as they do for m > n; the
    result is then the minimiser of smallest norm. If the columns of A are independent, W^T A is
    the identity. Computed in float64: one Cholesky factorisation, or one singular value
    decomposition where A A^T is ill-conditioned.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64.

    Returns
    -------
    Tensor
        W (n_measurements, n_atoms), with the dtype of the dictionary.

    Raises
    ------
    TypeError, ValueError
        If the dictionary has the wrong type, dtype or shape, is not finite, or has a column of
        zeros or one that is lost in the rounding errors of the others.

    References
    ----------
    Liu, Chen, Wang, Yin, "ALISTA: Analytic weights are as good as learned weights in LISTA",
    ICLR 2019.
    """
    a = check_dictionary("dictionary", dictionary).double()
    factor, failed = torch.linalg.cholesky_ex(a @ a.mT)
    pivots = factor.diagonal()
    if not failed and pivots.min() > _SMALLEST_PIVOT * pivots.max():
        weight = torch.cholesky_solve(a, factor)
        weight = weight / (weight * a).sum(dim=0)
    else:
        left, values, right = _decompose(dictionary)
        weight = (left / values) @ right / right.square().sum(dim=0)
    return weight.to(dictionary.dtype)


@torch.no_grad()
def symmetric_preconditioner(dictionary: Tensor) -> SymmetricForm:
    """Symmetric form of the analytic weights: a preconditioner that makes A and W one matrix.

    With P = (A A^T)^(-1/2), b = A x becomes b P = D (scale x): work with D and the measurements
    ``b @ preconditioner``, and divide the codes by ``scale``. P is the pseudo-inverse of the root
    where the rows of A depend on one another. Computed in float64.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64.

    Returns
    -------
    SymmetricForm
        P (n_measurements, n_measurements), D (n_measurements, n_atoms) and scale (n_atoms,), with
        the dtype of the dictionary.

    Raises
    ------
    TypeError, ValueError
        As `analytic_weight`.

    References
    ----------
    Chen, Liu, Wang, Yin, "Hyperparameter tuning is all you need for LISTA", NeurIPS 2021.
    """
    check_dictionary("dictionary", dictionary)
    left, values, right = _decompose(dictionary)
    scale = right.norm(dim=0)
    parts = ((left / values) @ left.mT, left @ right / scale, scale)
    return SymmetricForm(*(part.to(dictionary.dtype) for part in parts))


def _decompose(dictionary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition in float64, cut at the numerical rank of the given dtype."""
    left, values, right = torch.linalg.svd(dictionary.double(), full_matrices=False)
    tolerance = max(dictionary.shape) * torch.finfo(dictionary.dtype).eps
    rank = int((values > tolerance * values[0]).sum())
    lost = (right[:rank].norm(dim=0) <= tolerance).nonzero().flatten()
    if lost.numel():
        raise ValueError(
            f"dictionary has columns of too different a size: column {int(lost[0])} is lost in "
            "the rounding errors of the others; scale the columns to unit norm"
        )
    return left[:, :rank], values[:rank], right[:rank]
