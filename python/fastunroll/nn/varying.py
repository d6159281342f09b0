"""Networks whose dictionary may differ from call to call, or from sample to sample."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastunroll._checks import check_choice, check_like, check_number, check_tensor
from fastunroll.functional import UnrolledResult
from fastunroll.nn.prox_gradient import ProxGradientNetwork
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.nn.thresholds import at_least_zero
from fastunroll.ops import reference
from fastunroll.ops.arguments import LEAST_SHAPES, PROX_KINDS
from fastunroll.ops.autograd import needs_grad, shrink
from fastunroll.prepared import PreparedDictionary, prepare
from fastunroll.program import Program
from fastunroll.solvers.lasso import LassoProblem

Network = TypeVar("Network", bound="VaryingDictionaryNetwork")

_PROX_KINDS = tuple(kind for kind in PROX_KINDS if kind not in LEAST_SHAPES)


class VaryingDictionaryNetwork(ProxGradientNetwork):
    """A layered network that takes the dictionary as an input, beside the measurements.

    One layer computes x_{k+1} = prox(x_k - g_k (x_k A^T R - b') W; th_k), where a subclass says
    what R (m, m), b' and W are; they depend on A and on parameters that all layers share. With one
    dictionary for all samples that is the fused recursion. With a dictionary per sample the factors
    are applied one after the other; no tensor larger than the dictionaries is made.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A where a call gives no other, float32 or float64; copied, not learned.
    n_layers, lam, support_selection
        As in `ProxGradientNetwork`.
    prox : {"soft", "nonnegative", "hard", "smooth"}
        Proximal operator, as in `fastunroll.unrolled_prox_gradient`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    no_program = "has one dictionary per sample"

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        lam: float = 0.4,
        prox: str = "soft",
        support_selection: SupportSelection | None = None,
    ) -> None:
        super().__init__(
            dictionary,
            n_layers,
            lam=lam,
            prox=check_choice("prox", prox, _PROX_KINDS),
            support_selection=support_selection,
        )

    def with_dictionary(self: Network, dictionary: Tensor) -> Network:
        """Return this network, with the same parameters, for other dictionaries.

        Parameters
        ----------
        dictionary : (n_measurements, n_atoms) or (batch, n_measurements, n_atoms)
            A, one for all samples or one per sample; dtype and device of the network. The number
            of atoms may differ from that of the default dictionary.

        Returns
        -------
        VaryingDictionaryNetwork
            A view: training it trains this network.

        Raises
        ------
        TypeError, ValueError
            If the dictionary is not as above, is not finite, or has a column of zeros.
        """
        view = copy.copy(self)
        view._buffers = {
            **self._buffers,
            "dictionary": _checked_dictionaries(dictionary, self.dictionary),
        }
        return view

    def forward(self, b: Tensor, dictionary: Tensor | None = None) -> Tensor:
        """Codes x_K (batch, n) of measurements b (batch, m); 1-D in, 1-D out.

        ``dictionary`` is as in `with_dictionary`; the network's own by default.
        """
        network = self if dictionary is None else self.with_dictionary(dictionary)
        return network.unroll(b).codes

    @abstractmethod
    def _analysis(self) -> tuple[Tensor | None, Tensor]:
        """R (m, m), symmetric, or None for the identity, and W of the shape of the dictionary."""

    def _weights(self, layers: range) -> Sequence[Tensor]:
        return (self._analysis()[1],)

    def _sources(self, layers: range) -> Sequence[Tensor]:
        parameters = dict(self.named_parameters())
        return (self.dictionary, *(parameters[name] for name in self.shared_parameters()))

    def _matrices(self, layers: range) -> tuple[Tensor | PreparedDictionary, Tensor | None]:
        """R A and W for the fused recursion, prepared where no gradient is needed."""

        def operands() -> tuple[Tensor, Tensor]:
            relation, weight = self._analysis()
            return self.dictionary if relation is None else relation @ self.dictionary, weight

        sources = self._sources(layers)
        if needs_grad(sources) or torch.compiler.is_compiling():
            return operands()
        return self._prepare_once(lambda: prepare(*operands()), *sources), None

    def _measured(self, b: Tensor) -> Tensor:
        """Return b' (batch, m) of the measurements b: b itself, unless a subclass overrides it."""
        return b

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {name: value for name, value in super().config().items() if name != "prox_shape"}

    @torch.no_grad()
    def program(self) -> Program[Tensor] | None:
        """All layers, with the network's own dictionary; None with one per sample."""
        if self.dictionary.dim() == 3:
            return None
        program = super().program()
        assert program is not None
        relation, weight = self._analysis()
        if relation is None:
            return program
        related = (relation @ self.dictionary).double()
        identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return replace(
            program,
            dictionary=None,
            weight=self._measured(identity) @ weight,
            gram=(related.mT @ weight.double()).to(weight.dtype),
        )

    def _run(
        self,
        b: Tensor,
        layers: range,
        initial: Tensor | None,
        objective_weight: float | None,
        iterates: bool,
    ) -> UnrolledResult:
        """Run consecutive layers from the codes ``initial``."""
        keep = iterates or objective_weight is not None
        per_sample = self.dictionary.dim() == 3
        run = self._run_per_sample if per_sample else self._run_shared
        codes, every = run(b, layers, initial, keep)
        objective = None
        if objective_weight is not None:
            assert every is not None
            lam = check_number("objective_weight", objective_weight, minimum=0.0)
            problem = LassoProblem(b[..., None, :], self.dictionary, lam, flat=False)
            objective = problem.objective(every[..., None, :])[..., 0]
        return UnrolledResult(codes, objective, every if iterates else None)

    def _run_shared(
        self, b: Tensor, layers: range, initial: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Codes and, where asked for, iterates, with one dictionary for all samples."""
        result = super()._run(self._measured(b), layers, initial, None, keep)
        return result.codes, result.iterates

    def _run_per_sample(
        self, b: Tensor, layers: range, initial: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Codes and, where asked for, iterates, with one dictionary per sample."""
        batch, m, n = self.dictionary.shape
        if tuple(b.shape) != (batch, m):
            raise ValueError(
                f"b must have shape ({batch}, {m}) to fit one dictionary per sample, "
                f"got shape {tuple(b.shape)}"
            )
        check_like("b", b, "dictionary", self.dictionary)
        relation, weight = self._analysis()
        measured = self._measured(b)
        steps, thresholds = self._numbers(layers)
        assert isinstance(steps, Tensor)
        bypass = self._bypass(layers) or (0,) * len(layers)
        x = b.new_zeros(batch, n) if initial is None else initial
        every = [x]
        numbers = zip(steps, at_least_zero(thresholds), bypass, strict=True)
        for step, threshold, count in numbers:
            product = torch.bmm(self.dictionary, x[:, :, None])[:, :, 0]
            residual = (product if relation is None else product @ relation) - measured
            direction = torch.bmm(residual[:, None], weight)[:, 0]
            x = self._shrink(x - step * direction, threshold, count)
            every.append(x)
        return x, torch.stack(every) if keep else None

    def _shrink(self, u: Tensor, threshold: Tensor, bypass: int) -> Tensor:
        """Proximal operator of one layer."""
        if bypass or self.prox == "hard":
            return reference.prox(u, threshold, self.prox, bypass)
        return shrink(u, threshold, self.prox)


def _checked_dictionaries(dictionary: object, like: Tensor) -> Tensor:
    """Return dictionaries (m, n) or (batch, m, n) for a network whose own is ``like``."""
    dictionary = check_tensor("dictionary", dictionary, (2, 3))
    check_like("dictionary", dictionary, "the network", like)
    m = like.shape[-2]
    if dictionary.shape[-2] != m or dictionary.shape[-1] == 0:
        raise ValueError(
            f"dictionary must be ({m}, n_atoms) or (batch, {m}, n_atoms), "
            f"got shape {tuple(dictionary.shape)}"
        )
    sizes = dictionary.detach().abs().amax(dim=-2)
    if not bool(torch.isfinite(sizes).all()):
        raise ValueError("dictionary contains NaN or Inf")
    if bool((sizes == 0).any()):
        raise ValueError("dictionary has a column of zeros; every atom must be non-zero")
    return dictionary
