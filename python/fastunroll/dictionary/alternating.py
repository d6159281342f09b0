r"""Alternating minimisation of 1/2 ||X - Z D^T||^2 + lambda ||Z||_1 over codes and dictionary.

One iteration computes

    Z = argmin_Z 1/2 ||X - Z D^T||^2 + lambda ||Z||_1
    d_j <- P(d_j + (X^T z_j - D Z^T z_j) / ||z_j||^2),   j = 1..n

with P the projection onto the unit ball and z_j the codes of atom j. FISTA solves the first
problem, from the last Z on; the second line is block coordinate descent. Sources: Agarwal,
Anandkumar, Jain, Netrapalli, "Learning sparsely used overcomplete dictionaries via alternating
minimization", SIAM J. Optim. 26, 2016; the dictionary step is Algorithm 2 of Mairal, Bach, Ponce,
Sapiro, "Online dictionary learning for sparse coding", ICML 2009.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary, check_positive_int
from fastunroll.solvers import fista, lasso_objective


class AlternatingResult(NamedTuple):
    """Result of `alternating_minimisation`."""

    dictionary: Tensor
    """D: (n_measurements, n_atoms), columns of norm at most 1."""
    codes: Tensor
    """Z: (n_samples, n_atoms)."""
    objective: Tensor
    """Mean over the samples after each iteration, (n_iterations,); it does not rise."""


@torch.no_grad()
def alternating_minimisation(
    samples: Tensor,
    dictionary: Tensor,
    lam: float,
    *,
    n_iterations: int = 20,
    max_encoder_iterations: int = 200,
    tolerance: float = 1e-4,
) -> AlternatingResult:
    """Learn a dictionary from all samples at once.

    Parameters
    ----------
    samples : (n_samples, n_measurements)
        X, finite.
    dictionary : (n_measurements, n_atoms)
        D to start from; its columns are brought to a norm of at most 1.
    lam : float
        Weight of the l1 norm, positive.
    n_iterations : int
        Number of iterations.
    max_encoder_iterations, tolerance
        When the lasso counts as solved, see `fastunroll.solvers.fista`.

    Returns
    -------
    AlternatingResult

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    check_positive_int("n_iterations", n_iterations)
    dictionary = check_dictionary("dictionary", dictionary)
    dictionary = dictionary / dictionary.norm(dim=0).clamp(min=1.0)
    codes: Tensor | None = None
    objective = []
    for _ in range(n_iterations):
        codes = fista(
            samples,
            dictionary,
            lam,
            initial=codes,
            max_iterations=max_encoder_iterations,
            tolerance=tolerance,
        ).codes
        update_dictionary(dictionary, codes.mT @ codes, samples.mT @ codes)
        objective.append(lasso_objective(codes, samples, dictionary, lam).mean())
    assert codes is not None
    return AlternatingResult(dictionary, codes, torch.stack(objective))


@torch.no_grad()
def update_dictionary(dictionary: Tensor, code_gram: Tensor, correlation: Tensor) -> None:
    """Minimise 1/2 ||X - Z D^T||^2 over one atom after the other, in place.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        D, changed in place. Atoms that no sample uses stay as they are.
    code_gram : (n_atoms, n_atoms)
        Z^T Z.
    correlation : (n_measurements, n_atoms)
        X^T Z.
    """
    for j in code_gram.diagonal().nonzero().flatten().tolist():
        atom = dictionary[:, j]
        atom += (correlation[:, j] - dictionary @ code_gram[:, j]) / code_gram[j, j]
        atom /= atom.norm().clamp(min=1.0)
