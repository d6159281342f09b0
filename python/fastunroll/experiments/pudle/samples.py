"""Dictionaries to find again, and samples of them with a fixed number of non-zeros."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll.data import SparseBatch
from fastunroll.data.seeds import stream_seed


@dataclass(frozen=True)
class AtomProblem:
    """Samples x = D z, where z has ``sparsity`` entries +-U(1, 2) at random places.

    Attributes
    ----------
    dictionary : (n_measurements, n_atoms)
        D, with unit columns.
    sparsity : int
        Non-zeros of a code.
    """

    dictionary: Tensor
    sparsity: int

    @classmethod
    def make(cls, n_measurements: int, n_atoms: int, sparsity: int, seed: int) -> AtomProblem:
        """Draw normal atoms and scale them to norm 1."""
        generator = torch.Generator().manual_seed(stream_seed(seed, "dictionary"))
        atoms = torch.randn(n_measurements, n_atoms, generator=generator)
        return cls(normalize(atoms, dim=0), sparsity)

    def start(self, noise: float, seed: int) -> Tensor:
        """D with normal noise of a standard deviation on its entries, scaled to unit columns."""
        generator = torch.Generator().manual_seed(stream_seed(seed, "validation"))
        atoms = self.dictionary
        return normalize(atoms + noise * torch.randn(atoms.shape, generator=generator), dim=0)

    def sample(self, count: int, generator: torch.Generator) -> SparseBatch:
        """Draw samples (count, n_measurements) and their codes (count, n_atoms)."""
        n_atoms = self.dictionary.shape[1]
        places = torch.rand(count, n_atoms, generator=generator).topk(self.sparsity).indices
        signs = 2.0 * torch.randint(2, places.shape, generator=generator) - 1
        values = signs * (1 + torch.rand(places.shape, generator=generator))
        codes = torch.zeros(count, n_atoms).scatter_(1, places, values)
        return SparseBatch(codes @ self.dictionary.mT, codes)
