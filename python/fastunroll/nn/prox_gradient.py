"""What the networks that run on the fused recursion share: matrices, numbers, support selection."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastunroll._checks import check_choice, check_number, check_positive_int, check_tensor
from fastunroll.analysis.spectral import lipschitz_constant
from fastunroll.functional import UnrolledResult, unrolled_prox_gradient
from fastunroll.layers import check_prox_shape
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.network import values, versions
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.nn.thresholds import LEAST_STEP, at_least, at_least_zero
from fastunroll.ops.arguments import PROX_KINDS, SELECTIVE
from fastunroll.ops.autograd import needs_grad
from fastunroll.prepared import PreparedDictionary, check_weight, prepare
from fastunroll.program import Program


class ProxGradientNetwork(LayeredNetwork):
    """A layered network with x_{k+1} = prox(x_k - step_k W_k^T (A x_k - b); threshold_k).

    A subclass makes its matrices and learned ``steps`` in `_add_layers`, and says what W_k is.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        K.
    weight : (n_measurements, n_atoms), optional
        First W_k, copied.
    lam : float
        lambda of the LASSO problem whose ISTA gives the first thresholds, lambda / L with L = 1.001
        ||A||_2^2.
    prox : str
        Proximal operator, one of those of `fastunroll.unrolled_prox_gradient`; ``"firm"`` belongs
        to the MCP penalty, ``"scad"`` to SCAD.
    prox_shape : float, optional
        Its shape, where it has one; not learned.
    support_selection : SupportSelection, optional
        The largest entries of a layer skip the shrinkage; by default none do. It goes with the
        soft, the non-negative and the hard threshold.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    thresholds: nn.ParameterList
    steps: nn.ParameterList

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        weight: Tensor | None = None,
        lam: float = 0.4,
        prox: str = "soft",
        prox_shape: float | None = None,
        support_selection: SupportSelection | None = None,
    ) -> None:
        super().__init__(dictionary, support_selection)
        check_positive_int("n_layers", n_layers)
        self.lam = check_number("lam", lam, minimum=0.0, exclusive=True)
        self.prox = check_choice("prox", prox, PROX_KINDS)
        self.prox_shape = check_prox_shape(prox, prox_shape)
        if support_selection is not None and prox not in SELECTIVE:
            raise ValueError(f"support_selection must be None with prox {prox!r}")
        if weight is not None:
            weight = checked_weight(weight, self.dictionary).detach().clone()
        step = first_step(self.dictionary)
        self._add_layers(n_layers, step, weight)
        self._add_thresholds(n_layers, step)

    @abstractmethod
    def _add_layers(self, n_layers: int, step: float, weight: Tensor | None) -> None:
        """Make the matrices and the steps; ``step`` is 1 / L, ``weight`` the first W if given."""

    def _add_thresholds(self, n_layers: int, step: float) -> None:
        """Make the thresholds."""
        self.thresholds = repeated(self.lam * step, n_layers, self.dictionary)

    @abstractmethod
    def _weights(self, layers: range) -> Sequence[Tensor]:
        """W_k (n_measurements, n_atoms): one per layer, one for all, or none where W = A."""

    def _numbers(self, layers: range) -> tuple[Tensor | float, Tensor]:
        """Steps (len(layers),), or 1.0 without learned ones, and raw thresholds (len(layers),)."""
        thresholds = torch.stack(of_layers(self.thresholds, layers))
        return self._steps(layers) if hasattr(self, "steps") else 1.0, thresholds

    def _steps(self, layers: range) -> Tensor:
        """Learned steps (len(layers),), positive whatever training did to them."""
        return at_least(torch.stack(of_layers(self.steps, layers)), LEAST_STEP)

    def _run(
        self,
        b: Tensor,
        layers: range,
        initial: Tensor | None,
        objective_weight: float | None,
        iterates: bool,
    ) -> UnrolledResult:
        """Run consecutive layers from the codes ``initial``."""
        dictionary, weight, step, threshold, bypass = self._derive(
            lambda: self._arguments(layers), lambda: self._state(layers)
        )
        return unrolled_prox_gradient(
            b,
            dictionary,
            weight,
            step=step,
            threshold=threshold,
            n_layers=len(layers),
            prox=self.prox,
            prox_shape=self.prox_shape,
            bypass=bypass,
            initial=initial,
            objective_weight=objective_weight,
            iterates=iterates,
        )

    def _arguments(
        self, layers: range
    ) -> tuple[Tensor | PreparedDictionary, Tensor | None, Tensor | float, Tensor, tuple[int, ...]]:
        """A, W, steps, thresholds and counts of support selection of some layers."""
        step, threshold = self._numbers(layers)
        return *self._matrices(layers), step, at_least_zero(threshold), self._bypass(layers)

    def _state(self, layers: range) -> object:
        """What `_arguments` depends on."""
        lists = [getattr(self, name) for name in ("steps", "thresholds") if name in self._modules]
        numbers = [number for one in lists for number in of_layers(one, layers)]
        return layers, self.support_selection, values(numbers), versions(self._sources(layers))

    def _sources(self, layers: range) -> Sequence[Tensor]:
        """What `_matrices` depends on."""
        return (self.dictionary, *self._weights(layers))

    def _matrices(self, layers: range) -> tuple[Tensor | PreparedDictionary, Tensor | None]:
        """A and W, prepared where no gradient is needed."""
        weights = self._weights(layers)

        def stacked() -> Tensor | None:
            return stack(weights) if weights else None

        if needs_grad(weights) or torch.compiler.is_compiling():
            return self.dictionary, stacked()
        sources = self._sources(layers)
        return self._prepare_once(lambda: prepare(self.dictionary, stacked()), *sources), None

    @torch.no_grad()
    def program(self) -> Program[Tensor] | None:
        """All layers; see `fastunroll.program.Program`."""
        layers = range(self.n_layers)
        weights = self._weights(layers)
        step, threshold = self._numbers(layers)
        shape = self.prox_shape
        return Program(
            dictionary=self.dictionary,
            weight=one_or_all(weights) if weights else None,
            step=step if isinstance(step, Tensor) else torch.full_like(threshold, step),
            threshold=at_least_zero(threshold),
            prox=self.prox,
            prox_shape=None if shape is None else torch.full_like(threshold, shape),
            bypass=self._bypass(layers),
        )

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            "support_selection": None,
            **super().config(),
            "lam": self.lam,
            "prox": self.prox,
            "prox_shape": self.prox_shape,
        }


def first_step(dictionary: Tensor) -> float:
    """Step 1 / L of ISTA with L = 1.001 ||A||_2^2."""
    return 1.0 / (1.001 * lipschitz_constant(dictionary))


def checked_weight(weight: object, dictionary: Tensor) -> Tensor:
    """Return analysis weights W if they are a matrix of the dictionary's shape."""
    return check_weight(check_tensor("weight", weight, (2,)), dictionary)[0]


def repeated(value: Tensor | float, n_layers: int, like: Tensor) -> nn.ParameterList:
    """Make one parameter per layer, all with the same start; dtype and device of ``like``."""
    start = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return nn.ParameterList(nn.Parameter(start.clone()) for _ in range(n_layers))


def threshold_scale(network: ProxGradientNetwork, source: ProxGradientNetwork) -> float:
    """Factor of the thresholds that a network takes over from another one.

    It is 1, but where a hard threshold follows a firm shrinkage, which leaves entries above
    ``prox_shape`` thresholds as they are.
    """
    if network.prox == "hard" and source.prox == "firm":
        assert source.prox_shape is not None
        return source.prox_shape
    return 1.0


def of_layers(parameters: nn.ParameterList, layers: range) -> list[Tensor]:
    """The parameters of some layers; to index the list itself takes twenty times as long."""
    found = list(parameters._parameters.values())
    return cast(list[Tensor], found[layers.start : layers.stop])


def stack(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices (m, n), one or more, as one tensor (len(matrices), m, n)."""
    return matrices[0][None] if len(matrices) == 1 else torch.stack(list(matrices))


def one_or_all(matrices: Sequence[Tensor]) -> Tensor:
    """The matrix (m, n) that all layers share, or those of the layers (K, m, n)."""
    return matrices[0] if len(matrices) == 1 else stack(matrices)
