"""Dictionaries to start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll._checks import (
    check_choice,
    check_generator,
    check_positive_int,
    check_tensor,
)
from fastunroll.data.dictionaries import overcomplete_dct

INITIAL = ("data", "random", "dct")

_FLAT = 1e-6  # Norm of a sample, relative to the largest, that cannot become an atom.


def initial_dictionary(
    samples: Tensor, n_atoms: int, generator: torch.Generator, *, kind: str = "data"
) -> Tensor:
    """Make a dictionary to start from.

    Parameters
    ----------
    samples : (n_samples, n_measurements)
        Samples to learn from.
    n_atoms : int
        Number of atoms.
    generator : torch.Generator
        Source of all random numbers, on the CPU.
    kind : {"data", "random", "dct"}
        Different samples, drawn at random from those that are not zero; normal random numbers; or
        the overcomplete DCT of square patches, see `fastunroll.data.overcomplete_dct`.

    Returns
    -------
    Tensor
        (n_measurements, n_atoms) with unit columns, with the dtype of the samples, on the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above: among others, if the samples are not finite, if there are
        fewer usable ones than atoms (``"data"``), or if the DCT does not come in this size.
    """
    check_tensor("samples", samples, (2,))
    check_positive_int("n_atoms", n_atoms)
    check_generator("generator", generator)
    check_choice("kind", kind, INITIAL)
    n_samples, n_measurements = samples.shape
    if kind == "dct":
        patch_size = math.isqrt(n_measurements)
        if patch_size**2 != n_measurements:
            raise ValueError(
                f"samples must be square patches for the DCT, got {n_measurements} measurements"
            )
        return overcomplete_dct(patch_size, n_atoms, dtype=samples.dtype)
    if kind == "random":
        gaussian = torch.randn(n_measurements, n_atoms, generator=generator, dtype=torch.float64)
        return normalize(gaussian, dim=0).to(samples.dtype)
    samples = samples.detach().cpu()
    if not bool(torch.isfinite(samples).all()):
        raise ValueError("samples contains NaN or Inf")
    norms = samples.norm(dim=1)
    usable = samples[norms > _FLAT * norms.max()] if n_samples else samples
    if len(usable) < n_atoms:
        raise ValueError(
            f"samples must hold at least n_atoms = {n_atoms} that are not zero to start from, got "
            f"{len(usable)} of n_samples={n_samples}; give more samples, ask for fewer atoms or "
            "start from random ones"
        )
    chosen = torch.randperm(len(usable), generator=generator)[:n_atoms]
    return normalize(usable[chosen], dim=1).T.contiguous()
