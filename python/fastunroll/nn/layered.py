"""Base class of the networks whose parameters belong to layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastunroll._checks import check_dictionary, check_positive_int, check_tensor
from fastunroll.functional import UnrolledResult
from fastunroll.nn.network import UnrolledNetwork
from fastunroll.nn.support_selection import SupportSelection

Network = TypeVar("Network", bound="LayeredNetwork")


class LayeredNetwork(UnrolledNetwork):
    """A network whose parameters belong to layers, so that it can be trained layer by layer.

    A subclass keeps what one layer learns in a ``nn.ParameterList`` with one entry per layer, such
    as ``thresholds``, and what all layers share in plain parameters. It implements `_run`.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    support_selection : SupportSelection, optional
        The largest entries of a layer skip the shrinkage; by default none do.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    dictionary: Tensor

    def __init__(
        self, dictionary: Tensor, support_selection: SupportSelection | None = None
    ) -> None:
        super().__init__()
        dictionary = check_dictionary("dictionary", dictionary).detach().clone()
        if not isinstance(support_selection, SupportSelection | None):
            raise TypeError(
                "support_selection must be a SupportSelection or None, "
                f"got {type(support_selection).__name__}"
            )
        self.support_selection = support_selection
        self.register_buffer("dictionary", dictionary)

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return len(self._lists()[0][1])

    def layer_parameters(self, layer: int) -> list[str]:
        """Names of the parameters of one layer, as in ``named_parameters()``."""
        return [f"{name}.{layer}" for name, _ in self._lists()]

    def shared_parameters(self) -> list[str]:
        """Names of the parameters that all layers share, as in ``named_parameters()``."""
        lists = tuple(f"{name}." for name, _ in self._lists())
        return [name for name, _ in self.named_parameters() if not name.startswith(lists)]

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Run the first ``n_layers`` layers, all by default.

        First layers that learn nothing, as when a layer-wise training adds a layer, run without a
        gradient; what follows them is differentiated.

        Parameters
        ----------
        b : (batch, n_measurements) or (n_measurements,)
            Measurements.
        objective_weight, iterates
            As in `fastunroll.unrolled_prox_gradient`.
        n_layers : int, optional
            Number of layers to run.

        Returns
        -------
        UnrolledResult

        Raises
        ------
        TypeError, ValueError
            With the name of the argument that does not fit.
        """
        b = check_tensor("b", b, (1, 2))
        most = self.n_layers
        stop = most if n_layers is None else check_positive_int("n_layers", n_layers)
        if stop > most:
            raise ValueError(f"n_layers must be at most {most}, got {stop}")
        start = self._n_frozen(b, stop)
        if start == 0:
            return self._run(b, range(stop), None, objective_weight, iterates)
        with torch.no_grad():
            head = self._run(b, range(start), None, objective_weight, iterates)
        tail = self._run(b, range(start, stop), head.codes, objective_weight, iterates)
        return UnrolledResult(
            tail.codes,
            _join(head.objective, tail.objective),
            _join(head.iterates, tail.iterates),
        )

    @abstractmethod
    def _run(
        self,
        b: Tensor,
        layers: range,
        initial: Tensor | None,
        objective_weight: float | None,
        iterates: bool,
    ) -> UnrolledResult:
        """Run consecutive layers from the codes ``initial``; objective and iterates include it."""

    def _bypass(self, layers: range) -> tuple[int, ...]:
        """Counts of support selection of some layers, or none where it has no selection."""
        if self.support_selection is None:
            return ()
        n_atoms = self.dictionary.shape[-1]
        return self.support_selection.counts(n_atoms, layers.stop)[layers.start :]

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        selection = self.support_selection
        chosen = {} if selection is None else {"support_selection": asdict(selection)}
        return {"n_layers": self.n_layers, **chosen}

    @classmethod
    def from_config(
        cls: type[Network], config: dict[str, Any], state: dict[str, Tensor]
    ) -> Network:
        """Build the network that `config` and a ``state_dict`` describe."""
        selection = config.get("support_selection")
        if selection is not None:
            config = {**config, "support_selection": SupportSelection(**selection)}
        return cls(state["dictionary"], **config)

    def _n_frozen(self, b: Tensor, stop: int) -> int:
        """Number of first layers, fewer than ``stop``, that need no gradient."""
        if not torch.is_grad_enabled() or b.requires_grad:
            return 0
        lists = [values for _, values in self._lists()]
        learning = (k for k in range(stop) if any(values[k].requires_grad for values in lists))
        first = next(learning, 0)
        if first > 0:
            shared = set(self.shared_parameters())
            if any(p.requires_grad for name, p in self.named_parameters() if name in shared):
                return 0
        return first

    def _lists(self) -> list[tuple[str, nn.ParameterList]]:
        """The lists with one entry per layer, by name."""
        return [(n, m) for n, m in self.named_children() if isinstance(m, nn.ParameterList)]


def _join(head: Tensor | None, tail: Tensor | None) -> Tensor | None:
    """Put results (layers + 1, ...) of consecutive layers together; their common one comes once."""
    return None if head is None or tail is None else torch.cat((head, tail[1:]))
