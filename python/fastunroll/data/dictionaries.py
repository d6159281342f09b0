"""Dictionaries for image patches: the overcomplete DCT, and one learned from patches."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll._checks import check_dtype, check_positive_int, check_tensor
from fastunroll._optional import import_optional
from fastunroll.data.patches import remove_mean

_FLAT = 1e-6  # Norm of a patch without contrast.
_EPOCHS = 10


def overcomplete_dct(
    patch_size: int, n_atoms: int, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Make the separable overcomplete DCT dictionary.

    The 1-D atoms are cos(pi k (i + 1/2) / K) with k = 0..K-1 and K^2 = ``n_atoms``, less their mean
    for k > 0; the 2-D atoms are all products of two. The first atom is constant and the others have
    zero mean. With K = ``patch_size`` it is the orthonormal DCT-II.

    Parameters
    ----------
    patch_size : int
        Side of a patch, in pixels, at least 2.
    n_atoms : int
        A perfect square, at least ``patch_size``^2.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    Tensor
        Dictionary ``(patch_size^2, n_atoms)`` with unit columns; pixels row by row.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    n_frequencies = math.isqrt(check_positive_int("n_atoms", n_atoms))
    if n_frequencies**2 != n_atoms:
        raise ValueError(f"n_atoms must be a perfect square, got {n_atoms}")
    if not 2 <= check_positive_int("patch_size", patch_size) <= n_frequencies:
        raise ValueError(
            f"patch_size must be at least 2 and at most sqrt(n_atoms) = {n_frequencies}, "
            f"got {patch_size}"
        )
    check_dtype("dtype", dtype)
    pixels = torch.arange(patch_size, dtype=torch.float64) + 0.5
    frequencies = torch.arange(n_frequencies, dtype=torch.float64) * (math.pi / n_frequencies)
    atoms = torch.cos(torch.outer(pixels, frequencies))
    atoms[:, 1:] -= atoms[:, 1:].mean(dim=0)
    atoms = normalize(atoms, dim=0)
    return torch.kron(atoms, atoms).to(dtype)


def learn_patch_dictionary(patches: Tensor, n_atoms: int, seed: int = 0) -> Tensor:
    """Learn a dictionary from patches with scikit-learn's online dictionary learning.

    The mean of each patch is removed first, and patches without contrast are left out. The atoms
    start at random patches.

    Parameters
    ----------
    patches : Tensor
        ``(count, n_pixels)`` with at least ``n_atoms`` patches that are not constant.
    n_atoms : int
        Number of atoms.
    seed : int
        Seed of the first atoms and of the order of the patches.

    Returns
    -------
    Tensor
        Dictionary ``(n_pixels, n_atoms)`` with unit columns, with the dtype of ``patches``, on the
        CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    Mairal, Bach, Ponce, Sapiro, "Online dictionary learning for sparse coding", ICML 2009.
    """
    check_tensor("patches", patches, (2,))
    if not bool(torch.isfinite(patches).all()):
        raise ValueError("patches contains NaN or Inf")
    check_positive_int("n_atoms", n_atoms)
    centred, _ = remove_mean(patches.detach().cpu().double())
    centred = centred[centred.norm(dim=1) > _FLAT]
    if len(centred) < n_atoms:
        raise ValueError(
            f"patches must hold at least n_atoms = {n_atoms} that are not constant, "
            f"got {len(centred)}"
        )
    # Pixels of unit variance give scikit-learn's penalty its usual meaning.
    centred = centred / centred.std()
    generator = torch.Generator().manual_seed(seed)
    first = centred[torch.randperm(len(centred), generator=generator)[:n_atoms]]
    atoms = minibatch_dictionary(
        centred.numpy(),
        n_atoms,
        alpha=1.0,
        max_iter=_EPOCHS,
        fit_algorithm="cd",
        batch_size=256,
        dict_init=normalize(first).numpy(),
        random_state=seed,
    )
    return normalize(atoms, dim=0).to(patches.dtype)


def minibatch_dictionary(
    samples: NDArray[np.floating[Any]], n_atoms: int, **options: Any
) -> Tensor:
    """Run scikit-learn's MiniBatchDictionaryLearning with its own options: atoms in columns."""
    decomposition = import_optional("sklearn.decomposition")
    learner = decomposition.MiniBatchDictionaryLearning(n_atoms, **options)
    with warnings.catch_warnings():
        # A code that falls just short of scikit-learn's strict tolerance updates an atom as well.
        warnings.simplefilter("ignore", import_optional("sklearn.exceptions").ConvergenceWarning)
        learner.fit(samples)
    return torch.from_numpy(learner.components_).T
