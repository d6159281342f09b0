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
from fastunroll.nn.prox_gradient import (
    ProxGradientNetwork,
    checked_weight,
    first_step,
    repeated,
)
from fastunroll.nn.support_selection import SupportSelection


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

    weight: Tensor

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
        a = self.dictionary
        weight = analytic_weight(a) if weight is None else checked_weight(weight, a)
        self.register_buffer("weight", weight.detach().clone())
        self.steps = repeated(1.0, n_layers, a)
        self.thresholds = repeated(lam * first_step(a), n_layers, a)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return (self.weight,)

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> ALISTA:
        """Build the network that `config` and a ``state_dict`` describe."""
        return super().from_config({**config, "weight": state["weight"]}, state)
