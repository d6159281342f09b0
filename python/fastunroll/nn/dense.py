"""Base of the networks whose layers are full matrices, and complex measurements in real numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from fastunroll.functional import UnrolledResult
from fastunroll.nn.iterated import IteratedNetwork


def stack_complex(value: Tensor, dim: int) -> Tensor:
    """Complex rows as real ones: real parts, then imaginary parts; real tensors stay as they are.

    For real codes, ||A x - b|| does not change if A is stacked along its rows (``dim=0``) and the
    measurements (batch, m) are stacked along their last axis (``dim=-1``).

    Parameters
    ----------
    value : Tensor
        complex64, complex128 or real.
    dim : int
        Axis of the measurements.

    Returns
    -------
    Tensor
        float32 or float64, twice as long in ``dim`` where ``value`` is complex.
    """
    return torch.cat((value.real, value.imag), dim=dim) if value.is_complex() else value


class DenseNetwork(IteratedNetwork):
    """An unrolled network in plain PyTorch: W1 b plus a matrix times the layer's state.

    A subclass says in `layers` what a layer does. It keeps W1 in ``input_weights``, W2 in
    ``weights`` and numbers of the shrinkage in further lists, one entry per layer. The first layer
    starts from 0 and needs no W2, so ``weights.k`` belongs to layer k + 1.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied. A complex dictionary, for complex measurements and real
        codes, is kept as `stack_complex` makes it.
    """

    input_weights: nn.ParameterList
    weights: nn.ParameterList
    tied = False
    """Whether all layers share their two matrices."""

    def __init__(self, dictionary: Tensor) -> None:
        super().__init__(
            stack_complex(dictionary, 0) if isinstance(dictionary, Tensor) else dictionary
        )

    @abstractmethod
    def layers(self, b: Tensor) -> Iterator[Tensor]:
        """Codes of one layer after the other, (batch, n_atoms) each, from b (batch, m)."""

    def layer_parameters(self, layer: int) -> list[str]:
        """Names of the parameters of one layer, as in ``named_parameters()``."""
        return [name for name, _ in self.named_parameters() if self._layer_of(name) == layer]

    def shared_parameters(self) -> list[str]:
        """Names of the parameters that all layers share, as in ``named_parameters()``."""
        return [name for name, _ in self.named_parameters() if self._layer_of(name) is None]

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Run the first ``n_layers`` layers, all by default; ``b`` is complex where A is.

        See `LayeredNetwork.unroll` for arguments and errors.
        """
        return super().unroll(
            stack_complex(b, -1) if isinstance(b, Tensor) else b,
            objective_weight=objective_weight,
            iterates=iterates,
            n_layers=n_layers,
        )

    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        return islice(self.layers(b), n_layers)

    def _layer_of(self, name: str) -> int | None:
        """Layer of a parameter, or None for one that all layers share."""
        kind, index = name.split(".")[:2]
        if kind not in ("input_weights", "weights"):
            return int(index)
        return None if self.tied else int(index) + (kind == "weights")
