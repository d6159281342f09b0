r"""NOODL: online dictionary learning with hard-thresholded codes.

For a batch X (batch, m) of fresh samples, with HT_t(v) = v 1[|v| > t],

    Z <- HT_{t_0}(X D),   then K times   Z <- HT_t(Z - eta_z (Z D^T - X) D)
    D <- normalise(D - eta_D / batch (Z D^T - X)^T sign(Z))

where "normalise" scales the columns to norm 1. Source: Rambhatla, Li, Haupt, "NOODL: Provable
online dictionary learning and sparse coding", ICLR 2019, Algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll._checks import (
    check_dictionary,
    check_number,
    check_positive_int,
    check_shape,
    check_tensor,
)
from fastunroll.functional import unrolled_prox_gradient


class NOODL:
    """A dictionary and the two steps that NOODL takes with every batch.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        D to start from, near the true one; copied, its columns scaled to norm 1.
    n_layers : int
        K.
    coefficient_step : float
        eta_z.
    threshold : float
        t.
    first_threshold : float
        t_0: half of the smallest magnitude that the non-zeros of the true codes have.
    dictionary_step : float
        eta_D, of the order of n_atoms / (number of non-zeros in a code).

    Attributes
    ----------
    dictionary : (n_measurements, n_atoms)
        D.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    def __init__(
        self,
        dictionary: Tensor,
        *,
        dictionary_step: float,
        n_layers: int = 100,
        coefficient_step: float = 0.2,
        threshold: float = 0.1,
        first_threshold: float = 0.5,
    ) -> None:
        self.dictionary = normalize(check_dictionary("dictionary", dictionary).detach(), dim=0)
        self.dictionary_step = check_number(
            "dictionary_step", dictionary_step, minimum=0.0, exclusive=True
        )
        self.n_layers = check_positive_int("n_layers", n_layers)
        self.coefficient_step = check_number(
            "coefficient_step", coefficient_step, minimum=0.0, exclusive=True
        )
        self.threshold = check_number("threshold", threshold, minimum=0.0)
        self.first_threshold = check_number("first_threshold", first_threshold, minimum=0.0)

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Codes Z (batch, n_atoms) of samples X (batch, n_measurements)."""
        check_tensor("samples", samples, (2,))
        check_shape(
            "samples", samples, (len(samples), len(self.dictionary)), "batch, n_measurements"
        )
        correlation = samples @ self.dictionary
        return unrolled_prox_gradient(
            samples,
            self.dictionary,
            step=self.coefficient_step,
            threshold=self.threshold,
            n_layers=self.n_layers,
            prox="hard",
            initial=correlation * (correlation.abs() > self.first_threshold),
        ).codes

    @torch.no_grad()
    def update(self, samples: Tensor) -> Tensor:
        """Take one step of the dictionary.

        Parameters
        ----------
        samples : (batch, n_measurements)
            X; NOODL's theory asks for fresh samples in every step.

        Returns
        -------
        Tensor
            Codes Z (batch, n_atoms) that the step was taken with.

        Raises
        ------
        TypeError, ValueError
            If the samples do not fit, or are not finite.
        """
        codes = self.encode(samples)
        if not bool(torch.isfinite(codes).all()):
            raise ValueError("samples contains NaN or Inf, or coefficient_step is too long")
        residual = codes @ self.dictionary.mT - samples
        gradient = residual.mT @ codes.sign() / len(samples)
        self.dictionary = normalize(self.dictionary - self.dictionary_step * gradient, dim=0)
        return codes
