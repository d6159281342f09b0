"""Dictionary learning of other packages with our conventions: samples in rows, atoms in columns.

Both minimise the mean over the samples of 1/2 ||x - D z||^2 + lam ||z||_1 with the online method of
Mairal, Bach, Ponce, Sapiro, "Online dictionary learning for sparse coding", ICML 2009.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastunroll._checks import check_number, check_positive_int, check_tensor
from fastunroll._optional import import_optional
from fastunroll.data.dictionaries import minibatch_dictionary


def learn_with_sklearn(
    samples: Tensor,
    n_atoms: int,
    lam: float,
    *,
    initial: Tensor | None = None,
    n_epochs: int = 1,
    batch_size: int = 256,
    method: str = "cd",
    seed: int = 0,
) -> Tensor:
    """Learn a dictionary with scikit-learn's MiniBatchDictionaryLearning.

    Parameters
    ----------
    samples : (n_samples, n_measurements)
        Finite samples.
    n_atoms : int
        Number of atoms.
    lam : float
        Weight of the l1 norm, positive.
    initial : (n_measurements, n_atoms), optional
        Dictionary to start from; scikit-learn's choice by default.
    n_epochs : int
        Passes over the samples; scikit-learn may stop earlier.
    batch_size : int
        Samples of a step.
    method : {"cd", "lars"}
        How it solves the lasso.
    seed : int
        Seed of scikit-learn's random choices.

    Returns
    -------
    Tensor
        Dictionary (n_measurements, n_atoms), with the dtype of the samples.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    ImportError
        If scikit-learn is not installed.
    """
    array = _checked(samples, n_atoms, lam, n_epochs, batch_size)
    atoms = minibatch_dictionary(
        array,
        n_atoms,
        alpha=lam,
        max_iter=n_epochs,
        fit_algorithm=method,
        batch_size=batch_size,
        dict_init=None if initial is None else np.ascontiguousarray(initial.detach().mT.numpy()),
        random_state=seed,
    )
    return atoms.contiguous().to(samples.dtype)


def learn_with_spams(
    samples: Tensor,
    n_atoms: int,
    lam: float,
    *,
    initial: Tensor | None = None,
    n_epochs: int = 1,
    batch_size: int = 256,
    n_threads: int = 1,
) -> Tensor:
    """Learn a dictionary with SPAMS (``spams.trainDL``).

    Parameters
    ----------
    samples, n_atoms, lam, n_epochs, batch_size
        As in `learn_with_sklearn`.
    initial : (n_measurements, n_atoms), optional
        Dictionary to start from; SPAMS starts from random samples by default.
    n_threads : int
        Threads of SPAMS.

    Returns
    -------
    Tensor
        Dictionary (n_measurements, n_atoms), with the dtype of the samples.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    ImportError
        If SPAMS is not installed.
    """
    array = _checked(samples, n_atoms, lam, n_epochs, batch_size)
    check_positive_int("n_threads", n_threads)
    spams = import_optional("spams", extra="spams")
    options = {} if initial is None else {"D": np.asfortranarray(initial.detach().numpy())}
    atoms = spams.trainDL(
        np.asfortranarray(array.T),
        K=n_atoms,
        lambda1=lam,
        mode=2,  # the penalised form of the lasso, as above
        iter=n_epochs * -(-len(array) // batch_size),
        batchsize=batch_size,
        numThreads=n_threads,
        verbose=False,
        **options,
    )
    return torch.from_numpy(np.ascontiguousarray(atoms)).to(samples.dtype)


def _checked(
    samples: Tensor, n_atoms: int, lam: float, n_epochs: int, batch_size: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
    """Check what both packages share and return the samples as an array."""
    check_tensor("samples", samples, (2,))
    if samples.numel() == 0 or not bool(torch.isfinite(samples).all()):
        raise ValueError("samples must not be empty and hold finite numbers only")
    check_number("lam", lam, minimum=0.0, exclusive=True)
    for name, value in (("n_atoms", n_atoms), ("n_epochs", n_epochs), ("batch_size", batch_size)):
        check_positive_int(name, value)
    return samples.detach().cpu().numpy()
