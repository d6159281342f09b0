"""Random signals and filters, for the tests of convolutional dictionaries."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 0.2
"""Step of the encoders."""


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Filters of norm 1."""
    filters = random(*shape, seed=seed)
    return filters / filters.flatten(1).norm(dim=1).reshape(-1, *[1] * (len(shape) - 1))
