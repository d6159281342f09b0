r"""LISTA with smooth shrinkage in the scaling of the neural tangent kernel (NTK).

One layer computes, from x_0 = 0,

    x_l = s_t(W1_l b / sqrt(m) + W2_l x_{l-1} / sqrt(n))
    s_t(u) = log(1 + e^(u - t)) - log(1 + e^(-u - t))

and learns W1_l (n, m) and W2_l (n, n), all entries N(0, 1) at the start. Source: Shah, Pradhan, Pu,
Randhi, Rodrigues, Eldar, "Optimization guarantees of unfolded ISTA and ADMM networks with smooth
soft-thresholding", IEEE TSP 72, 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int
from fastunroll.functional import smooth_soft_threshold
from fastunroll.nn.dense import DenseNetwork
from fastunroll.nn.thresholds import at_least_zero
from fastunroll.program import Program


class SmoothLISTA(DenseNetwork):
    """LISTA in NTK scaling with random weights; K m n + (K - 1) n^2 learned numbers.

    The smooth shrinkage makes all codes dense, so its layers run on PyTorch's matrix products; the
    fused recursion, which lives on sparse codes, takes up to twice as long here.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A; it gives the sizes and the objective. float32, float64 or complex.
    n_layers : int
        K.
    threshold : float
        t of all layers, at least 0.
    learn_threshold : bool
        One learned t per layer (K more learned numbers).
    seed : int
        Seed of the weights.

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
        threshold: float = 1.0,
        learn_threshold: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(dictionary)
        check_positive_int("n_layers", n_layers)
        threshold = check_number("threshold", threshold, minimum=0.0)
        m, n = self.dictionary.shape
        generator = torch.Generator().manual_seed(seed)

        def normal(columns: int) -> nn.Parameter:
            return nn.Parameter(self.dictionary.new_empty(n, columns).normal_(generator=generator))

        self.input_weights = nn.ParameterList(normal(m) for _ in range(n_layers))
        self.weights = nn.ParameterList(normal(n) for _ in range(n_layers - 1))
        self.thresholds = nn.ParameterList(
            nn.Parameter(self.dictionary.new_tensor(threshold), requires_grad=learn_threshold)
            for _ in range(n_layers)
        )
        self.learn_threshold = learn_threshold

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return len(self.input_weights)

    def layers(self, b: Tensor) -> Iterator[Tensor]:
        """x_1, ..., x_K, (batch, n_atoms) each, from b (batch, n_measurements)."""
        m, n = self.dictionary.shape
        x = b.new_zeros(len(b), n)
        for k, first in enumerate(self.input_weights):
            u = b @ first.mT / m**0.5
            if k > 0:
                u = u + x @ self.weights[k - 1].mT / n**0.5
            x = smooth_soft_threshold(u, at_least_zero(self.thresholds[k]))
            yield x

    @torch.no_grad()
    def program(self) -> Program[Tensor]:
        """All layers; complex measurements stacked, see `fastunroll.nn.dense.stack_complex`."""
        m, n = self.dictionary.shape
        first = torch.stack([weight.mT for weight in self.input_weights])
        later = [weight.mT for weight in self.weights]
        thresholds = at_least_zero(torch.stack(list(self.thresholds)))
        return Program(
            weight=first / m**0.5,
            gram=-torch.stack([first.new_zeros(n, n), *later]) / n**0.5,
            step=torch.ones_like(thresholds),
            threshold=thresholds,
            prox="smooth",
            skip=False,
        )

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {**super().config(), "learn_threshold": self.learn_threshold}
