r"""LISTA-CP and LISTA-CPSS: weight coupling, without and with support selection.

One layer computes

    x_{k+1} = S_{th_k}(x_k - W_k^T (A x_k - b))

and learns W_k (m, n) and th_k: K (m n + 1) numbers. With support selection, the largest entries
skip the shrinkage. Source: Chen, Liu, Wang, Yin, "Theoretical linear convergence of unfolded ISTA
and its practical weights and thresholds", 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastunroll.nn.alista import ALISTA
from fastunroll.nn.prox_gradient import (
    ProxGradientNetwork,
    checked_weight,
    first_step,
    of_layers,
    repeated,
)
from fastunroll.nn.support_selection import SupportSelection


class LISTACP(ProxGradientNetwork):
    """LISTA-CP; with support selection it is LISTA-CPSS.

    Unless it is given another W to start from, it starts as ISTA.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    weight : (n_measurements, n_atoms), optional
        First W_k, copied; A / L by default, with L = 1.001 ||A||_2^2. The weights of
        `fastunroll.analysis.analytic.analytic_weight` make it start as ALISTA does.
    lam : float
        lambda: the first thresholds are lambda / L.
    prox : str
        Proximal operator, one of those of `fastunroll.unrolled_prox_gradient`; ``"firm"`` belongs
        to the MCP penalty, ``"scad"`` to SCAD.
    prox_shape : float, optional
        Its shape, where it has one; not learned.
    support_selection : SupportSelection, optional
        The largest entries of a layer skip the shrinkage; by default none do.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        weight: Tensor | None = None,
        lam: float = 0.4,
        prox: str = "soft",
        prox_shape: float | None = None,
        support_selection: SupportSelection | None = None,
    ) -> None:
        super().__init__(
            dictionary,
            n_layers,
            lam=lam,
            prox=prox,
            prox_shape=prox_shape,
            support_selection=support_selection,
        )
        a, step = self.dictionary, first_step(self.dictionary)
        weight = step * a if weight is None else checked_weight(weight, a)
        self.weights = repeated(weight.detach(), n_layers, a)
        self.thresholds = repeated(lam * step, n_layers, a)

    @torch.no_grad()
    def take_over(self, network: ALISTA) -> None:
        """Compute what a trained ALISTA of as many layers computes: W_k = g_k W, the same th_k."""
        for k, (step, threshold) in enumerate(zip(network.steps, network.thresholds, strict=True)):
            self.weights[k].copy_(step * network.weight)
            self.thresholds[k].copy_(threshold)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return of_layers(self.weights, layers)
