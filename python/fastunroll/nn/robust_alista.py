r"""Robust ALISTA: ALISTA whose analytic weights are computed by a network, from a perturbed A.

An encoder of E layers computes W from A, by projected gradient steps on ||W^T A||_F^2,

    W <- W - B_i A A^T W,   w_j <- w_j + (1 - a_j^T w_j) a_j / ||a_j||^2

from w_j = a_j / ||a_j||^2, and the layers of ALISTA compute the codes with it,

    x_{k+1} = S_{th_k}(x_k - g_k W^T (A x_k - b)).

It learns B_i (m, m), g_k and th_k: E m^2 + 2K numbers. Source: Liu, Chen, Wang, Yin, "ALISTA:
Analytic weights are as good as learned weights in LISTA", 2019.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastunroll._checks import check_positive_int
from fastunroll.analysis.analytic import analytic_weight
from fastunroll.nn.prox_gradient import first_step, repeated
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.nn.varying import VaryingDictionaryNetwork


class WeightEncoder(nn.Module):
    """The encoder: weights W of dictionaries A, with a_j^T w_j = 1.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A typical dictionary; the first B_i are I / L with its L = 1.001 ||A||_2^2, so that the
        encoder starts as projected gradient descent.
    n_layers : int
        E.
    """

    def __init__(self, dictionary: Tensor, n_layers: int) -> None:
        super().__init__()
        check_positive_int("n_encoder_layers", n_layers)
        identity = torch.eye(len(dictionary), dtype=dictionary.dtype, device=dictionary.device)
        self.preconditioners = repeated(first_step(dictionary) * identity, n_layers, dictionary)

    def forward(self, dictionary: Tensor) -> Tensor:
        """Weights W, of the shape (..., n_measurements, n_atoms) of the dictionaries A."""
        gram = dictionary @ dictionary.mT
        dual = dictionary / dictionary.square().sum(dim=-2, keepdim=True)
        weight = dual
        for preconditioner in self.preconditioners:
            weight = weight - preconditioner @ (gram @ weight)
            weight = weight + (1 - (dictionary * weight).sum(dim=-2, keepdim=True)) * dual
        return weight

    def coherence_loss(self, dictionary: Tensor) -> Tensor:
        """||W^T A||_F^2 / n of the encoder's W, mean over the dictionaries: scalar.

        A loss for training the encoder alone. Its smallest value is that of the analytic weights.
        """
        weight: Tensor = self(dictionary)
        gram = dictionary @ dictionary.mT
        return ((gram @ weight) * weight).sum(dim=-2).mean()

    def pair_loss(self, dictionary: Tensor) -> Tensor:
        """||W - W*||_F^2 / n with the analytic weights W*, mean over the dictionaries: scalar.

        A loss for training the encoder alone, on pairs of A and W*.
        """
        flat = dictionary.reshape(-1, *dictionary.shape[-2:])
        target = torch.stack([analytic_weight(a) for a in flat]).reshape(dictionary.shape)
        weight: Tensor = self(dictionary)
        return (weight - target).square().sum(dim=-2).mean()


class RobustALISTA(VaryingDictionaryNetwork):
    """Robust ALISTA, for one dictionary or one per sample; see `with_dictionary`.

    Train the ``encoder`` alone first, on perturbed dictionaries, with one of its two losses; then
    all, with the measurements of perturbed dictionaries.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A where a call gives no other, float32 or float64; copied, not learned.
    n_layers : int
        K.
    n_encoder_layers : int
        E.
    lam : float
        lambda: the first thresholds are lambda / L with L = 1.001 ||A||_2^2. The first steps are 1.
    prox, support_selection
        As in `VaryingDictionaryNetwork`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Examples
    --------
    >>> network = RobustALISTA(dictionary)
    >>> network.encoder.coherence_loss(perturbed).backward()
    >>> codes = network(b, perturbed)
    """

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        n_encoder_layers: int = 8,
        lam: float = 0.4,
        prox: str = "soft",
        support_selection: SupportSelection | None = None,
    ) -> None:
        self._n_encoder_layers = n_encoder_layers  # `_add_layers` asks for it
        super().__init__(
            dictionary, n_layers, lam=lam, prox=prox, support_selection=support_selection
        )

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        self.encoder = WeightEncoder(self.dictionary, self._n_encoder_layers)
        self.steps = repeated(1.0, n_layers, self.dictionary)

    def _analysis(self) -> tuple[None, Tensor]:
        weight: Tensor = self.encoder(self.dictionary)
        return None, weight

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {**super().config(), "n_encoder_layers": self._n_encoder_layers}
