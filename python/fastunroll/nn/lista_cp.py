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
    of_layers,
    repeated,
    threshold_scale,
)


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
    prox, prox_shape, support_selection
        As in `ProxGradientNetwork`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        first = step * self.dictionary if weight is None else weight
        self.weights = repeated(first, n_layers, self.dictionary)

    @torch.no_grad()
    def take_over(self, network: ALISTA) -> None:
        """Compute what a trained ALISTA of as many layers computes: W_k = g_k W, the same th_k.

        A hard threshold that takes over a firm shrinkage drops all that this one would shrink.
        """
        scale = threshold_scale(self, network)
        for k, (step, threshold) in enumerate(zip(network.steps, network.thresholds, strict=True)):
            self.weights[k].copy_(step * network.weight)
            self.thresholds[k].copy_(scale * threshold)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return of_layers(self.weights, layers)
