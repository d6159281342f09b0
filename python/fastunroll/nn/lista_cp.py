r"""LISTA-CP and LISTA-CPSS: weight coupling, without and with support selection.

One layer computes

    x_{k+1} = S_{th_k}(x_k - W_k^T (A x_k - b))

and learns W_k (m, n) and th_k: K (m n + 1) numbers. With support selection, the largest entries
skip the shrinkage. Source: Chen, Liu, Wang, Yin, "Theoretical linear convergence of unfolded ISTA
and its practical weights and thresholds", 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastunroll.nn.prox_gradient import ProxGradientNetwork, first_step, of_layers, repeated
from fastunroll.nn.support_selection import SupportSelection


class LISTACP(ProxGradientNetwork):
    """LISTA-CP; with support selection it is LISTA-CPSS. It starts as ISTA.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    lam : float
        lambda of the ISTA that it starts as: th = lambda / L and W = A / L, L = 1.001 ||A||_2^2.
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
        self.weights = repeated(step * a, n_layers, a)
        self.thresholds = repeated(lam * step, n_layers, a)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return of_layers(self.weights, layers)
