r"""LISTA and LISTA-SS: both matrices of the layer are learned.

One layer computes

    x_{k+1} = S_{th_k}(W1_k b + W2_k x_k)

and learns W1_k (n, m), W2_k (n, n) and th_k: K (n^2 + m n + 1) numbers, fewer if layers share W1 or
W2. With support selection, the largest entries skip the shrinkage. Source: Gregor, LeCun, "Learning
fast approximations of sparse coding", 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastunroll.nn.alista import ALISTA
from fastunroll.nn.prox_gradient import (
    ProxGradientNetwork,
    of_layers,
    one_or_all,
    repeated,
    stack,
    threshold_scale,
)
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.ops.autograd import needs_grad
from fastunroll.ops.pack import pack_operands
from fastunroll.ops.repeat import RepeatedCall
from fastunroll.prepared import PreparedDictionary
from fastunroll.program import Program


class LISTA(ProxGradientNetwork):
    """LISTA; unless it is given another W1 to start from, it starts as ISTA.

    It is stored as a gradient step with a learned Gram matrix, which is what the fused recursion
    computes: x W2^T + b W1^T = x - (x G - b W) with ``gram`` G = I - W2^T and ``weight`` W = W1^T.
    These are the same networks, with the same gradients up to the sign.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    tied : bool
        One W2 for all layers, as in the original.
    shared_input : bool
        One W1 for all layers, as in the original.
    weight : (n_measurements, n_atoms), optional
        First W = W1^T, copied; A / L by default, with L = 1.001 ||A||_2^2. The weights of
        `fastunroll.analysis.analytic.analytic_weight` make it start as ALISTA does. W2 starts as
        I - W1 A.
    lam : float
        lambda: the first thresholds are lambda / L.
    prox, prox_shape, support_selection
        As in `ProxGradientNetwork`.

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
        tied: bool = False,
        shared_input: bool = False,
        weight: Tensor | None = None,
        lam: float = 0.4,
        prox: str = "soft",
        prox_shape: float | None = None,
        support_selection: SupportSelection | None = None,
    ) -> None:
        self.tied, self.shared_input = tied, shared_input  # `_add_layers` asks for them
        super().__init__(
            dictionary,
            n_layers,
            weight=weight,
            lam=lam,
            prox=prox,
            prox_shape=prox_shape,
            support_selection=support_selection,
        )

    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        a = self.dictionary
        first = step * a if weight is None else weight
        gram = a.mT @ first
        if self.shared_input:
            self.weight = nn.Parameter(first)
        else:
            self.weights = repeated(first, n_layers, a)
        if self.tied:
            self.gram = nn.Parameter(gram)
        else:
            self.grams = repeated(gram, n_layers, a)

    def matrices(self, layer: int) -> tuple[Tensor, Tensor]:
        """W1 (n_atoms, n_measurements) and W2 (n_atoms, n_atoms) of layer 0, ..., n_layers - 1.

        Raises
        ------
        TypeError, ValueError
            If there is no such layer.
        """
        if not isinstance(layer, int):
            raise TypeError(f"layer must be an int, got {type(layer).__name__}")
        if not 0 <= layer < self.n_layers:
            raise ValueError(f"layer must be at least 0 and less than {self.n_layers}, got {layer}")
        one = range(layer, layer + 1)
        (weight,), (gram,) = self._weights(one), self._grams(one)
        return weight.mT, torch.eye(*gram.shape, dtype=gram.dtype, device=gram.device) - gram.mT

    @torch.no_grad()
    def take_over(self, network: ALISTA) -> None:
        """Compute what a trained ALISTA of as many layers computes; for matrices of every layer.

        W1_k = g_k W^T, W2_k = I - g_k W^T A, and the same th_k. A hard threshold that takes over a
        firm shrinkage drops all that this one would shrink.

        Raises
        ------
        ValueError
            If layers share matrices, whose steps then cannot differ.
        """
        if self.tied or self.shared_input:
            raise ValueError("network cannot be taken over by a LISTA whose layers share matrices")
        gram = self.dictionary.mT @ network.weight
        scale = threshold_scale(self, network)
        for k, (step, threshold) in enumerate(zip(network.steps, network.thresholds, strict=True)):
            self.weights[k].copy_(step * network.weight)
            self.grams[k].copy_(step * gram)
            self.thresholds[k].copy_(scale * threshold)

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return (self.weight,) if self.shared_input else of_layers(self.weights, layers)

    def _grams(self, layers: range) -> Sequence[Tensor]:
        return (self.gram,) if self.tied else of_layers(self.grams, layers)

    def _sources(self, layers: range) -> Sequence[Tensor]:
        return (*super()._sources(layers), *self._grams(layers))

    def _matrices(self, layers: range) -> tuple[PreparedDictionary, None]:
        """A, W and G; packed where no gradient is needed."""
        weights, grams = self._weights(layers), self._grams(layers)
        sources = self._sources(layers)
        if needs_grad(sources) or torch.compiler.is_compiling():
            # torch.compile cannot follow the default of last_call.
            call = RepeatedCall()
            return PreparedDictionary(self.dictionary, stack(weights), stack(grams), (), call), None

        def make() -> PreparedDictionary:
            weight, gram = stack(weights).detach(), stack(grams).detach()
            packed: tuple[Tensor, ...] = ()
            if gram.device.type == "cpu":
                packed = pack_operands(gram, self.dictionary, weight, analysis=True)
            return PreparedDictionary(self.dictionary, weight, gram, packed)

        return self._prepare_once(make, *sources), None

    @torch.no_grad()
    def program(self) -> Program[Tensor] | None:
        """All layers, with their own Gram matrices."""
        program = super().program()
        assert program is not None
        return replace(program, gram=one_or_all(self._grams(range(self.n_layers))))

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {**super().config(), "tied": self.tied, "shared_input": self.shared_input}
