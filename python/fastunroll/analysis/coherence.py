"""Coherence: how far the atoms of a dictionary are from being orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary, check_like, check_shape


@torch.no_grad()
def mutual_coherence(dictionary: Tensor) -> float:
    """Mutual coherence: the largest |a_i^T a_j| / (||a_i|| ||a_j||) over i != j.

    Computed in float64.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64.

    Returns
    -------
    float
        In [0, 1]; 0 for a single atom.

    Raises
    ------
    TypeError, ValueError
        If the dictionary has the wrong type, dtype or shape, is not finite, or has a column of
        zeros.
    """
    a = check_dictionary("dictionary", dictionary).double()
    a = a / a.norm(dim=0)
    return _largest_off_diagonal(a.mT @ a)


@torch.no_grad()
def generalized_coherence(dictionary: Tensor, weight: Tensor) -> float:
    """Generalised coherence: the largest |w_i^T a_j| over i != j, with W scaled to w_i^T a_i = 1.

    Learned weights need not have this scale, so it is divided out: the result does not depend on
    the lengths of the w_i. Computed in float64.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64.
    weight : (n_measurements, n_atoms)
        W.

    Returns
    -------
    float
        At least 0; 0 for a single atom.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype or shape, is not finite or has a column of zeros,
        or if some w_i is orthogonal to its a_i.

    References
    ----------
    Liu, Chen, Wang, Yin, "ALISTA: Analytic weights are as good as learned weights in LISTA",
    ICLR 2019.
    """
    a = check_dictionary("dictionary", dictionary)
    w = check_dictionary("weight", weight)
    check_like("weight", w, "dictionary", a)
    check_shape("weight", w, tuple(a.shape), "that of dictionary")
    gram = w.double().mT @ a.double()
    scale = gram.diagonal()[:, None]
    if bool((scale == 0).any()):
        column = int((scale == 0).nonzero()[0, 0])
        raise ValueError(f"weight must have w_i^T a_i != 0, but column {column} is orthogonal")
    return _largest_off_diagonal(gram / scale)


def _largest_off_diagonal(gram: Tensor) -> float:
    return float(gram.fill_diagonal_(0).abs().max())
