r"""Ada-LISTA: learned matrices beside the dictionary, so that the dictionary may vary.

One layer computes

    x_{k+1} = S_{th_k}(x_k - g_k (W2 A)^T W2 A x_k + g_k (W1 A)^T b)

and learns W1 and W2 (m, m), which all layers share, g_k and th_k: 2 m^2 + 2K numbers. It starts as
ISTA. Source: Aberdam, Golts, Elad, "Ada-LISTA: Learned solvers adaptive to varying models", 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastunroll.nn.prox_gradient import repeated
from fastunroll.nn.varying import VaryingDictionaryNetwork


class AdaLISTA(VaryingDictionaryNetwork):
    """Ada-LISTA, for one dictionary or one per sample; see `with_dictionary`.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A where a call gives no other, float32 or float64; copied, not learned.
    n_layers : int
        K.
    lam : float
        lambda of the ISTA that it starts as: th = lambda / L and g = 1 / L, L = 1.001 ||A||_2^2.
    prox, support_selection
        As in `VaryingDictionaryNetwork`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        a = self.dictionary
        identity = torch.eye(len(a), dtype=a.dtype, device=a.device)
        self.measurement_weight = nn.Parameter(identity.clone())
        self.residual_weight = nn.Parameter(identity)
        self.steps = repeated(step, n_layers, a)

    def _analysis(self) -> tuple[Tensor, Tensor]:
        return self.residual_weight.mT @ self.residual_weight, self.dictionary

    def _measured(self, b: Tensor) -> Tensor:
        return b @ self.measurement_weight
