r"""ALISTA: ISTA with analytic weights, learned steps and learned thresholds.

One layer computes

    x_{k+1} = S_{th_k}(x_k - g_k W^T (A x_k - b)),   W = argmin ||W^T A||_F^2 with w_j^T a_j = 1

and learns g_k and th_k: 2K numbers. Source: Liu, Chen, Wang, Yin, "ALISTA: Analytic weights are as
good as learned weights in LISTA", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastunroll.analysis.analytic import analytic_weight
from fastunroll.nn.prox_gradient import ProxGradientNetwork, repeated


class ALISTA(ProxGradientNetwork):
    """ALISTA: dictionary and weights that are kept, and 2K learned numbers.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied.
    n_layers : int
        K.
    weight : (n_measurements, n_atoms), optional
        W, copied; `fastunroll.analysis.analytic.analytic_weight` by default.
    lam : float
        lambda: the first thresholds are lambda / L with L = 1.001 ||A||_2^2. The first steps are 1.
    prox, prox_shape, support_selection
        As in `ProxGradientNetwork`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    weight: Tensor

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        weight = analytic_weight(self.dictionary) if weight is None else weight
        self.register_buffer("weight", weight)
        self.steps = repeated(1.0, n_layers, self.dictionary)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return (self.weight,)

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> ALISTA:
        """Build the network that `config` and a ``state_dict`` describe."""
        return super().from_config({**config, "weight": state["weight"]}, state)
