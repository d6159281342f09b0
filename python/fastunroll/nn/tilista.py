r"""TiLISTA: one learned weight matrix, tied over the layers, with learned steps and thresholds.

One layer computes

    x_{k+1} = S_{th_k}(x_k - g_k W^T (A x_k - b))

and learns W (m, n), g_k and th_k: m n + 2K numbers. Source: Liu, Chen, Wang, Yin, "ALISTA: Analytic
weights are as good as learned weights in LISTA", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastunroll.nn.prox_gradient import (
    ProxGradientNetwork,
    checked_weight,
    first_step,
    repeated,
)
from fastunroll.nn.support_selection import SupportSelection


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
        self.weight = nn.Parameter(weight.detach().clone())
        self.steps = repeated(1.0, n_layers, a)
        self.thresholds = repeated(lam * step, n_layers, a)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return (self.weight,)
