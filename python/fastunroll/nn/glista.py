r"""GLISTA: LISTA-CP with gates against codes that are too small and steps that are too short.

One layer computes

    y_k = gain_k x_k,   z_k = S_{th_k}(y_k - W_k^T (A y_k - b))
    x_{k+1} = x_k + overshoot_k (z_k - x_k)

entry by entry, with the gates

    gain_k = 1 + mu_k th_{k-1} max(1 - |nu_k x_k|, 0)        in the first layers,
    gain_k = 1 + mu_k th_{k-1} / (|nu_k x_k| + 0.001)        in the others,
    overshoot_k = 1 + a_k th_k / (|z_k - x_k| + 0.1)

and learns W_k (m, n), th_k, mu_k, nu_k and a_k: K (m n + 4) numbers. The gain undoes the shrinkage
of the layer before; x_0 = 0, so the first one does nothing. Source: Wu, Guo, Li, Zhang, "Sparse
coding with gated learned ISTA", 2020; piecewise linear gains in the first 10 layers, inversely
proportional ones in the rest, and inversely proportional overshoots, as in the authors' code, but
with one nu_k per layer instead of one per atom.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from fastunroll._checks import check_number, check_positive_int
from fastunroll.functional import prox_gradient_step
from fastunroll.nn.iterated import IteratedNetwork
from fastunroll.nn.prox_gradient import first_step, repeated
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.nn.thresholds import at_least_zero

_N_LINEAR = 10
"""Number of first layers with a piecewise linear gain."""

_SMALLEST_CODE, _SMALLEST_CHANGE = 1e-3, 0.1
"""What keeps the inversely proportional gain and overshoot finite."""


class GLISTA(IteratedNetwork):
    """GLISTA; with its gates open (mu = a = 0), where it starts, it is LISTA-CP.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned. The W_k start as A / L, L = 1.001 ||A||_2^2.
    n_layers : int
        K.
    lam : float
        lambda: the first thresholds are lambda / L. One that training makes negative acts as 0.
    support_selection : SupportSelection, optional
        The largest entries of a layer skip the shrinkage; by default none do.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    no_program = "has gates between its layers"

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        lam: float = 0.4,
        support_selection: SupportSelection | None = None,
    ) -> None:
        super().__init__(dictionary, support_selection)
        n_layers = check_positive_int("n_layers", n_layers)
        self.lam = check_number("lam", lam, minimum=0.0, exclusive=True)
        a = self.dictionary
        step = first_step(a)
        self.weights = repeated(step * a, n_layers, a)
        self.thresholds = repeated(lam * step, n_layers, a)
        self.gains = repeated(0.0, n_layers, a)
        self.gain_slopes = repeated(1.0, n_layers, a)
        self.overshoots = repeated(0.0, n_layers, a)

    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        x = b.new_zeros(len(b), self.dictionary.shape[1])
        before = at_least_zero(self.thresholds[0])
        for k, bypass in enumerate(self._bypass(range(n_layers))):
            threshold = at_least_zero(self.thresholds[k])
            z = prox_gradient_step(
                self._gain(k, x, before) * x,
                b,
                self.dictionary,
                self.weights[k],
                step=1.0,
                threshold=threshold,
                bypass=bypass,
            )
            change = z - x
            excess = self.overshoots[k] * threshold / (change.abs() + _SMALLEST_CHANGE)
            x = x + (1 + excess) * change
            before = threshold
            yield x

    def _gain(self, k: int, x: Tensor, before: Tensor) -> Tensor:
        """gain_k of the codes x_k (batch, n_atoms), after a layer with the threshold ``before``."""
        size = (self.gain_slopes[k] * x).abs()
        shape = (1 - size).relu() if k < _N_LINEAR else 1 / (size + _SMALLEST_CODE)
        gain: Tensor = 1 + self.gains[k] * before * shape
        return gain

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {**super().config(), "lam": self.lam}
