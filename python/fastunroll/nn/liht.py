r"""LIHT and LIHT-CP: LISTA and LISTA-CP with the hard threshold H_th(u) = u where |u| > th, else 0.

One layer computes

    x_{k+1} = H_{th_k}(W1_k b + W2_k x_k)   or   x_{k+1} = H_{th_k}(x_k - W_k^T (A x_k - b))

and has the parameters of LISTA or LISTA-CP. Source: Xin, Wang, Gao, Wipf, "Maximal sparsity with
deep networks?", 2016.

The hard threshold has no slope in th_k, so training by gradients leaves th_k at its start. That is
sqrt(2 lambda / L), the threshold of the proximal operator of lambda / L times the number of
non-zeros, too high to find small entries. Thresholds that recover codes are those of a trained
ALISTA with firm shrinkage, which is nearly hard and has a slope: ``take_over``.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from fastunroll.nn.lista import LISTA
from fastunroll.nn.lista_cp import LISTACP
from fastunroll.nn.prox_gradient import ProxGradientNetwork, repeated


class LIHT(LISTA):
    """LIHT; it starts as iterative hard thresholding.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    tied, shared_input : bool
        One W2, one W1 for all layers.
    lam : float
        lambda: th = sqrt(2 lambda / L) with L = 1.001 ||A||_2^2. The matrices start as in `LISTA`.

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
        tied: bool = False,
        shared_input: bool = False,
        lam: float = 0.4,
    ) -> None:
        super().__init__(
            dictionary, n_layers, tied=tied, shared_input=shared_input, lam=lam, prox="hard"
        )

    def _add_thresholds(self, n_layers: int, step: float) -> None:
        self.thresholds = _hard_thresholds(self, n_layers, step)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            "n_layers": self.n_layers,
            "tied": self.tied,
            "shared_input": self.shared_input,
            "lam": self.lam,
        }


class LIHTCP(LISTACP):
    """LIHT-CP; it starts as iterative hard thresholding.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    lam : float
        lambda: th = sqrt(2 lambda / L) and W = A / L, with L = 1.001 ||A||_2^2.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    def __init__(self, dictionary: Tensor, n_layers: int = 16, *, lam: float = 0.4) -> None:
        super().__init__(dictionary, n_layers, lam=lam, prox="hard")

    def _add_thresholds(self, n_layers: int, step: float) -> None:
        self.thresholds = _hard_thresholds(self, n_layers, step)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {"n_layers": self.n_layers, "lam": self.lam}


def _hard_thresholds(network: ProxGradientNetwork, n_layers: int, step: float) -> nn.ParameterList:
    """First thresholds sqrt(2 lambda / L)."""
    return repeated(math.sqrt(2.0 * network.lam * step), n_layers, network.dictionary)
