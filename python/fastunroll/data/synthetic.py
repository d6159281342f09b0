"""Synthetic sparse regression: the benchmark problem of the LISTA literature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll._checks import (
    check_dictionary,
    check_dtype,
    check_generator,
    check_number,
    check_positive_int,
)


class SparseBatch(NamedTuple):
    """Measurements ``(batch, n_measurements)`` and their true codes ``(batch, n_atoms)``."""

    measurements: Tensor
    codes: Tensor


@dataclass(frozen=True, eq=False)
class SparseProblem:
    """Random sparse codes x, measured as b = A x + noise.

    Each entry of x is non-zero with probability ``density`` and then normal with mean 0 and
    standard deviation ``amplitude_std`` (Bernoulli-Gauss). The noise of a sample is normal with
    standard deviation std(A x) / 10^(snr_db / 20), where std(A x) is taken over the entries of
    that sample. So 20 log10(std(A x) / std(noise)) is ``snr_db`` in expectation; the realised
    ratio varies a little around it. A sample whose code is zero gets no noise.

    Use `dataclasses.replace` for a problem that differs in some fields, such as a mismatched test
    set.

    Parameters
    ----------
    dictionary : Tensor
        A, ``(n_measurements, n_atoms)``.
    density : float
        Probability of a non-zero, in [0, 1].
    snr_db : float, optional
        Signal-to-noise ratio in dB; None for no noise.
    amplitude_std : float
        Standard deviation of the non-zeros, greater than 0.

    Raises
    ------
    TypeError, ValueError
        If a field is not as above; the message names it.
    """

    dictionary: Tensor
    density: float = 0.1
    snr_db: float | None = None
    amplitude_std: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        check_dictionary("dictionary", self.dictionary)
        if check_number("density", self.density, minimum=0) > 1:
            raise ValueError(f"density must be at most 1, got {self.density:g}")
        if self.snr_db is not None:
            check_number("snr_db", self.snr_db)
        check_number("amplitude_std", self.amplitude_std, minimum=0, exclusive=True)

    @torch.no_grad()
    def sample(self, batch: int, generator: torch.Generator) -> SparseBatch:
        """Draw independent samples.

        Parameters
        ----------
        batch : int
            Number of samples.
        generator : torch.Generator
            Source of all random numbers, on the device of the dictionary or on the CPU. Equal
            states on the same kind of device give equal samples.

        Returns
        -------
        SparseBatch
            Measurements ``(batch, n_measurements)`` and codes ``(batch, n_atoms)``, with the dtype
            and device of the dictionary.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above.
        """
        check_positive_int("batch", batch)
        check_generator("generator", generator)
        n_measurements, n_atoms = self.dictionary.shape
        codes = self.dictionary.new_empty(batch, n_atoms, device=generator.device)
        support = codes.uniform_(generator=generator) < self.density
        codes = codes.normal_(0, self.amplitude_std, generator=generator) * support
        codes = codes.to(self.dictionary.device)
        measurements = codes @ self.dictionary.T
        if self.snr_db is not None:
            noise = codes.new_empty(batch, n_measurements, device=generator.device)
            noise = noise.normal_(generator=generator).to(codes.device)
            scale = measurements.std(dim=1, correction=0, keepdim=True) / 10 ** (self.snr_db / 20)
            measurements = measurements + scale * noise
        return SparseBatch(measurements, codes)


def make_sparse_problem(
    n_measurements: int = 250,
    n_atoms: int = 500,
    *,
    density: float = 0.1,
    snr_db: float | None = None,
    condition_number: float | None = None,
    amplitude_std: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> SparseProblem:
    """Make a problem with a random Gaussian dictionary of unit columns.

    The entries of A are normal with variance 1 / n_measurements. With a ``condition_number``, the
    singular values are then replaced by log-spaced ones of that ratio. Last, the columns are
    scaled to unit norm, which moves the condition number a little.

    Parameters
    ----------
    n_measurements, n_atoms : int
        Shape of A.
    density, snr_db, amplitude_std
        See `SparseProblem`.
    condition_number : float, optional
        Ratio of the largest to the smallest singular value, at least 1; None leaves A Gaussian.
    seed : int
        Seed of the dictionary. It is drawn in float64 on the CPU and rounded once, so that both
        dtypes get the same one.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    SparseProblem
        The problem, on the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; the message names it.

    References
    ----------
    Chen, Liu, Wang, Yin, "Theoretical linear convergence of unfolded ISTA and its practical
    weights and thresholds", NeurIPS 2018, section 5.1.
    """
    check_positive_int("n_measurements", n_measurements)
    check_positive_int("n_atoms", n_atoms)
    check_dtype("dtype", dtype)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(n_measurements, n_atoms, generator=generator, dtype=torch.float64)
    dictionary = gaussian / n_measurements**0.5
    if condition_number is not None:
        check_number("condition_number", condition_number, minimum=1)
        left, values, right = torch.linalg.svd(dictionary, full_matrices=False)
        # The columns are scaled below, so only the ratios of the singular values matter.
        decay = torch.linspace(0, 1, len(values), dtype=torch.float64)
        dictionary = left * condition_number**-decay @ right
    dictionary = normalize(dictionary, dim=0).to(dtype)
    return SparseProblem(dictionary, density, snr_db, amplitude_std)
