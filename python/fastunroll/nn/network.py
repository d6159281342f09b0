"""Base class of the unrolled networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number
from fastunroll.functional import UnrolledResult
from fastunroll.prepared import PreparedDictionary, prepare
from fastunroll.program import Program
from fastunroll.solvers.lasso import LassoProblem

T = TypeVar("T")


class UnrolledNetwork(nn.Module, ABC):
    """A K-layer network from measurements b (batch, m) to codes x_K (batch, n).

    A subclass states its formula in `unroll` and its constructor's arguments, apart from the
    tensors in its ``state_dict``, in `config`; that is all that `fastunroll.io` needs to save and
    load it.

    Attributes
    ----------
    no_program : str
        Why `program` may return None; the end of a sentence that begins with the network's name.
    """

    no_program: ClassVar[str] = "has layers that the engine does not know"

    def __init__(self) -> None:
        super().__init__()
        self._prepared: dict[object, PreparedDictionary] = {}
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

    def program(self) -> Program[Tensor] | None:
        """What the layers compute, for `fastunroll.runtime`; None if the engine cannot do it."""
        return None

    def forward(self, b: Tensor) -> Tensor:
        """Codes x_K (batch, n) of measurements b (batch, m); 1-D in, 1-D out."""
        return self.unroll(b).codes

    @property
    def n_parameters(self) -> int:
        """Number of learned numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _prepare(self, dictionary: Tensor) -> Tensor | PreparedDictionary:
        """Prepare a fixed dictionary, once for as long as it does not change.

        A compiled graph cannot look for changes, so it gets the dictionary itself.
        """
        if torch.compiler.is_compiling():
            return dictionary
        return self._prepare_once(lambda: prepare(dictionary), dictionary)

    def _prepare_once(
        self, make: Callable[[], PreparedDictionary], *sources: Tensor
    ) -> PreparedDictionary:
        """Make what a few matrices are prepared to, once for as long as they do not change.

        The last two results are kept: layer-wise training runs two sets of layers in turn. Changes
        behind PyTorch's back, through ``.data``, are not seen.
        """
        key = versions(sources)
        others = dict(self._prepared)
        found = others.pop(key, None)
        if found is None:
            with torch.inference_mode(False), torch.no_grad():
                found = make()
        self._prepared = {**dict(list(others.items())[-1:]), key: found}
        return found

    def _derive(self, compute: Callable[[], T], state: Callable[[], object]) -> T:
        """Compute what follows from parameters; in inference, again only if ``state()`` changes.

        The same objects let the recursion see that a call repeats.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return compute()
        now = state()
        derived = self._derived
        if derived is None or derived[0] != now:
            self._derived = derived = (now, compute())
        result: T = derived[1]
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Leave what can be computed again out of copies and pickles."""
        return {**self.__dict__, "_prepared": {}, "_derived": None}


def objectives(
    iterates: Iterable[Tensor], b: Tensor, dictionary: Tensor, weight: float | None
) -> Tensor | None:
    """F of every iterate, (n_iterates, batch) or (n_iterates,), or None without a weight.

    It is what `UnrolledNetwork.unroll` returns for an ``objective_weight``, from codes (batch, n)
    or (n,) and their measurements.
    """
    if weight is None:
        return None
    lam = check_number("objective_weight", weight, minimum=0.0)
    problem = LassoProblem(b, dictionary, lam, flat=False)
    return torch.stack([problem.objective(codes) for codes in iterates])


def versions(tensors: Iterable[Tensor]) -> tuple[object, ...]:
    """Where tensors lie, and how often they were changed in place."""
    return tuple([(t.data_ptr(), t._version, t.dtype) for t in tensors])


def values(tensors: Sequence[Tensor]) -> list[object]:
    """The numbers in small tensors of one device; those of a GPU come with a single copy."""
    if tensors[0].is_cpu:
        return [t.tolist() for t in tensors]
    return [torch.cat([t.flatten() for t in tensors]).tolist()]
