r"""LAMP: learned approximate message passing with the soft threshold, tied weights.

One layer computes, from v_{-1} = 0 and x_0 = 0,

    v_k = b - A x_k + (||x_k||_0 / m) v_{k-1}
    x_{k+1} = S_{th_k ||v_k||_2 / sqrt(m)}(x_k + B^T v_k)

and learns B (m, n), shared by all layers, and th_k: m n + K numbers. The last term of v_k is the
Onsager correction: it undoes the correlation of the residual with the code. Source: Borgerding,
Schniter, Rangan, "AMP-inspired deep networks for sparse linear inverse problems", 2017, section
III.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int
from fastunroll.nn.iterated import IteratedNetwork
from fastunroll.nn.prox_gradient import checked_weight, repeated
from fastunroll.nn.thresholds import at_least_zero
from fastunroll.ops import reference


class LAMP(IteratedNetwork):
    """LAMP; unless it is given another B to start from, it starts as AMP.

    AMP itself needs atoms that are nearly orthogonal.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    weight : (n_measurements, n_atoms), optional
        First B, copied; a_j / ||a_j||^2 by default. The weights of
        `fastunroll.analysis.analytic.analytic_weight` are a better start.
    first_threshold : float
        What every th_k starts from, in units of the standard deviation that ||v|| / sqrt(m)
        estimates. A th_k that training makes negative acts as 0.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    no_program = "keeps the residual of the layer before, for its Onsager term"

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        weight: Tensor | None = None,
        first_threshold: float = 1.1402,
    ) -> None:
        super().__init__(dictionary)
        n_layers = check_positive_int("n_layers", n_layers)
        check_number("first_threshold", first_threshold, minimum=0.0)
        a = self.dictionary
        weight = a / a.square().sum(dim=0) if weight is None else checked_weight(weight, a)
        self.weight = nn.Parameter(weight.detach().clone())
        self.thresholds = repeated(first_threshold, n_layers, a)

    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        m, n = self.dictionary.shape
        x, v = b.new_zeros(len(b), n), torch.zeros_like(b)
        for threshold in list(self.thresholds)[:n_layers]:
            onsager = (x != 0).sum(dim=1, keepdim=True, dtype=b.dtype) / m
            v = b - x @ self.dictionary.mT + onsager * v
            deviation = torch.linalg.vector_norm(v, dim=1, keepdim=True) / m**0.5
            u = x + v @ self.weight
            x = reference.soft_threshold(u, at_least_zero(threshold) * deviation)
            yield x
