r"""TiLISTA: one learned weight matrix, tied over the layers, with learned steps and thresholds.

One layer computes

    x_{k+1} = S_{th_k}(x_k - g_k W^T (A x_k - b))

and learns W (m, n), g_k and th_k: m n + 2K numbers. Source: Liu, Chen, Wang, Yin, "ALISTA: Analytic
weights are as good as learned weights in LISTA", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastunroll.nn.prox_gradient import ProxGradientNetwork, repeated


class TiLISTA(ProxGradientNetwork):
    """TiLISTA; unless it is given another W to start from, it starts as ISTA.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    weight : (n_measurements, n_atoms), optional
        First W, copied; A / L by default, with L = 1.001 ||A||_2^2. The weights of
        `fastunroll.analysis.analytic.analytic_weight` make it start as ALISTA does.
    lam : float
        lambda: the first thresholds are lambda / L. The first steps are 1.
    prox, prox_shape, support_selection
        As in `ProxGradientNetwork`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        self.weight = nn.Parameter(step * self.dictionary if weight is None else weight)
        self.steps = repeated(1.0, n_layers, self.dictionary)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return (self.weight,)
