"""How far a learned dictionary, and its codes, are from the true ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary, check_like, check_shape, check_tensor
from fastunroll._optional import import_optional


class AtomMatch(NamedTuple):
    """Which learned atom belongs to which true one."""

    order: Tensor
    """Index of the learned atom that is closest to each true one, (n_atoms,): a permutation."""
    signs: Tensor
    """+1 or -1, (n_atoms,): the sign of each learned atom that brings it closer."""

    def apply(self, values: Tensor) -> Tensor:
        """Bring a learned dictionary (m, n_atoms), or codes (batch, n_atoms), to the true order."""
        return values[:, self.order] * self.signs


def match_atoms(dictionary: Tensor, target: Tensor) -> AtomMatch:
    """Match learned atoms with the true ones, one to one.

    The permutation has the largest sum of |cosine| (Hungarian method), and each sign is that of the
    cosine.

    Parameters
    ----------
    dictionary, target : (n_measurements, n_atoms)
        The learned and the true dictionary.

    Returns
    -------
    AtomMatch

    Raises
    ------
    TypeError, ValueError
        If they are not finite dictionaries of one shape and dtype without zero columns.
    ImportError
        If SciPy is not installed.
    """
    dictionary, target = _checked_pair(dictionary, target)
    cosine = torch.nn.functional.normalize(target, dim=0).mT @ torch.nn.functional.normalize(
        dictionary, dim=0
    )
    optimize = import_optional("scipy.optimize")
    _, order = optimize.linear_sum_assignment(cosine.abs().cpu().numpy(), maximize=True)
    chosen = torch.from_numpy(order).to(target.device)
    signs = cosine.gather(1, chosen[:, None])[:, 0]
    return AtomMatch(chosen, torch.where(signs < 0, -1.0, 1.0).to(target.dtype))


def dictionary_error(dictionary: Tensor, target: Tensor, *, match: bool = True) -> float:
    """Relative error ||D - D*||_F / ||D*||_F.

    Parameters
    ----------
    dictionary, target : (n_measurements, n_atoms)
        D and D*.
    match : bool
        Compare after `match_atoms`. Without, atoms are compared in the order they have, as papers
        do whose learning starts near D*.

    Raises
    ------
    TypeError, ValueError, ImportError
        As `match_atoms`.
    """
    dictionary, target = _checked_pair(dictionary, target)
    if match:
        dictionary = match_atoms(dictionary, target).apply(dictionary)
    return float((dictionary.double() - target.double()).norm() / target.double().norm())


def code_error(codes: Tensor, target: Tensor, match: AtomMatch | None = None) -> float:
    """Relative error ||Z - Z*||_F / ||Z*||_F of codes.

    Parameters
    ----------
    codes, target : (batch, n_atoms)
        Z and Z*.
    match : AtomMatch, optional
        Bring the codes to the order and signs of the true atoms first.

    Raises
    ------
    TypeError, ValueError
        If they are not codes of one shape and dtype, or the true ones are all zero.
    """
    check_tensor("codes", codes, (2,))
    check_like("codes", codes, "target", check_tensor("target", target, (2,)))
    check_shape("codes", codes, tuple(target.shape), "that of target")
    if not bool(target.any()):
        raise ValueError("target must hold a code that is not zero")
    if match is not None:
        codes = match.apply(codes)
    return float((codes.double() - target.double()).norm() / target.double().norm())


def _checked_pair(dictionary: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Require two dictionaries of one shape, dtype and device."""
    dictionary = check_dictionary("dictionary", dictionary).detach()
    target = check_dictionary("target", target).detach()
    check_like("dictionary", dictionary, "target", target)
    check_shape("dictionary", dictionary, tuple(target.shape), "that of target")
    return dictionary, target
