"""Base class of the unrolled networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastunroll.functional import UnrolledResult
from fastunroll.prepared import PreparedDictionary, prepare

T = TypeVar("T")


class UnrolledNetwork(nn.Module, ABC):
    """A K-layer network from measurements b (batch, m) to codes x_K (batch, n).

    A subclass states its formula in `unroll` and its constructor's arguments, apart from the
    tensors in its ``state_dict``, in `config`; that is all that `fastunroll.io` needs to save and
    load it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._prepared: tuple[object, PreparedDictionary] | None = None
        self._derived: tuple[object, Any] | None = None

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold; the rest is in the ``state_dict``."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> UnrolledNetwork:
        """Build the network that `config` and a ``state_dict`` describe."""

    @abstractmethod
    def unroll(
        self, b: Tensor, *, objective_weight: float | None = None, iterates: bool = False
    ) -> UnrolledResult:
        """Run all layers; see `fastunroll.unrolled_prox_gradient` for what can be returned."""

    def forward(self, b: Tensor) -> Tensor:
        """Codes x_K (batch, n) of measurements b (batch, m); 1-D in, 1-D out."""
        return self.unroll(b).codes

    @property
    def n_parameters(self) -> int:
        """Number of learned numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _prepare(self, dictionary: Tensor) -> Tensor | PreparedDictionary:
        """Prepare a fixed dictionary, once for as long as it does not change.

        Changes behind PyTorch's back, through ``dictionary.data``, are not seen. A compiled graph
        cannot look for any, so it gets the dictionary itself.
        """
        if torch.compiler.is_compiling():
            return dictionary
        key = (dictionary.data_ptr(), dictionary._version, dictionary.dtype, dictionary.device)
        if self._prepared is None or self._prepared[0] != key:
            with torch.inference_mode(False):
                self._prepared = (key, prepare(dictionary))
        return self._prepared[1]

    def _derive(self, compute: Callable[[], T], *sources: Tensor) -> T:
        """Compute what follows from a few parameters; in inference, again only if they change.

        The same objects let the recursion see that a call repeats.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return compute()
        key = [(t.tolist(), t.dtype, t.device) for t in sources]
        if self._derived is None or self._derived[0] != key:
            self._derived = (key, compute())
        result: T = self._derived[1]
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Leave what can be computed again out of copies and pickles."""
        return {**self.__dict__, "_prepared": None, "_derived": None}
