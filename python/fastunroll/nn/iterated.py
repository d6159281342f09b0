"""Base class of the networks whose layers need more of a sample than its last code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from fastunroll._checks import check_like
from fastunroll.functional import UnrolledResult
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.network import objectives


class IteratedNetwork(LayeredNetwork):
    """A network whose layers run one by one in PyTorch, with any state between them.

    A subclass yields the code of every layer in `_codes`.
    """

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
        """Run the first layers; they always start from 0."""
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
        objective = objectives(kept, b, a, objective_weight)
        return UnrolledResult(kept[-1], objective, torch.stack(kept) if iterates else None)

    def _n_frozen(self, b: Tensor, stop: int) -> int:
        """Zero: where nothing is learned yet, PyTorch records nothing, and the state is kept."""
        return 0

    def _bypass(self, layers: range) -> tuple[int, ...]:
        """Counts of support selection of some layers, 0 where it has no selection."""
        return super()._bypass(layers) or (0,) * len(layers)
