"""Base class of the networks whose layers need more of a sample than its last code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary, check_like
from fastunroll.functional import UnrolledResult
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.solvers.lasso import lasso_objective

Network = TypeVar("Network", bound="IteratedNetwork")


class IteratedNetwork(LayeredNetwork):
    """A network whose layers run one by one in PyTorch, with any state between them.

    A subclass yields the code of every layer in `_codes`.

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
        a = check_dictionary("dictionary", dictionary).detach().clone()
        self.register_buffer("dictionary", a)
        if not isinstance(support_selection, SupportSelection | None):
            raise TypeError(
                "support_selection must be a SupportSelection or None, "
                f"got {type(support_selection).__name__}"
            )
        self.support_selection = support_selection

    @abstractmethod
    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        """Yield x_1, ..., x_{n_layers} (batch, n_atoms) of b (batch, n_measurements)."""

    def _run(
        self,
        b: Tensor,
        layers: range,
        initial: Tensor | None,
        objective_weight: float | None,
        iterates: bool,
    ) -> UnrolledResult:
        a = self.dictionary
        check_like("b", b, "dictionary", a)
        if b.shape[-1] != a.shape[0]:
            raise ValueError(
                f"b must have {a.shape[0]} columns to fit the dictionary's shape "
                f"{tuple(a.shape)}, got shape {tuple(b.shape)}"
            )
        flat = b.dim() == 1
        rows = b[None] if flat else b
        kept = [rows.new_zeros(len(rows), a.shape[1])]
        with torch.autocast(b.device.type, enabled=False):
            for codes in self._codes(rows, len(layers)):
                kept = [*kept, codes] if iterates or objective_weight is not None else [codes]
        if flat:
            kept = [codes[0] for codes in kept]
        objective = None
        if objective_weight is not None:
            values = [lasso_objective(codes, b, a, objective_weight) for codes in kept]
            objective = torch.stack(values)
        return UnrolledResult(kept[-1], objective, torch.stack(kept) if iterates else None)

    def _n_frozen(self, b: Tensor, stop: int) -> int:
        """Zero: where nothing is learned yet, PyTorch records nothing, and the state is kept."""
        return 0

    def _bypass(self, n_layers: int) -> tuple[int, ...]:
        """Number of entries that skip the shrinkage, per layer."""
        if self.support_selection is None:
            return (0,) * n_layers
        return self.support_selection.counts(self.dictionary.shape[1], n_layers)

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
