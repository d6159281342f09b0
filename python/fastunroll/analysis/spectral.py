"""Spectral quantities of a dictionary."""

from __future__ import annotations

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary


@torch.no_grad()
def lipschitz_constant(dictionary: Tensor) -> float:
    """Lipschitz constant L = ||A||_2^2 of the gradient of 1/2 ||A x - b||^2.

    It is the largest eigenvalue of the smaller Gram matrix, computed in float64.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        Dictionary A, float32 or float64.

    Returns
    -------
    float
        L. Gradient descent converges for steps in (0, 2/L).

    Raises
    ------
    TypeError, ValueError
        If the dictionary has the wrong type, dtype or shape, is not finite, or has a column of
        zeros.
    """
    a = check_dictionary("dictionary", dictionary).double()
    m, n = a.shape
    gram = a @ a.mT if m < n else a.mT @ a
    return float(torch.linalg.eigvalsh(gram)[-1])
