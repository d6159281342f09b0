r"""Step-LISTA: ISTA with learned steps, for a given LASSO problem.

One layer computes

    x_{k+1} = S_{lambda g_k}(x_k - g_k A^T (A x_k - b))

and learns g_k: K numbers. It is trained without true codes, on the objective of the LASSO. Source:
Ablin, Moreau, Massias, Gramfort, "Learning step sizes for unfolded sparse coding", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastunroll.nn.prox_gradient import ProxGradientNetwork, repeated


class StepLISTA(ProxGradientNetwork):
    """Step-LISTA; it starts as ISTA.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied.
    n_layers : int
        K.
    lam : float
        lambda of the LASSO problem, kept. The first steps are 1 / L with L = 1.001 ||A||_2^2.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Notes
    -----
    `fastunroll.losses.lasso_loss` is the loss that the paper trains it with.
    """

    def __init__(self, dictionary: Tensor, n_layers: int = 16, *, lam: float = 0.4) -> None:
        super().__init__(dictionary, n_layers, lam=lam)

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        self.steps = repeated(step, n_layers, self.dictionary)

    def _add_thresholds(self, n_layers: int, step: float) -> None:
        """Make none: they follow from the steps."""

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return ()

    def _numbers(self, layers: range) -> tuple[Tensor, Tensor]:
        steps = self._steps(layers)
        return steps, self.lam * steps

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {"n_layers": self.n_layers, "lam": self.lam}
