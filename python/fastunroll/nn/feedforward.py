r"""Feed-forward network with smooth shrinkage in NTK scaling, to compare unrolled networks with.

    x_1 = s_t(W_1 b / sqrt(m)),   x_l = s_t(W_l x_{l-1} / sqrt(h)),   l = 2..K

with h hidden units in layers 1..K-1, n outputs, and all entries of W_l N(0, 1) at the start. It
sees b in its first layer only; that is what the unrolled networks have before it. Source: Shah,
Pradhan, Pu, Randhi, Rodrigues, Eldar, "Optimization guarantees of unfolded ISTA and ADMM networks
with smooth soft-thresholding", IEEE TSP 72, 2024.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int, check_tensor
from fastunroll.functional import smooth_soft_threshold
from fastunroll.nn.dense import DenseNetwork


class FeedForward(nn.Module):
    """A fully connected network; h m + (K - 2) h^2 + n h learned numbers.

    Parameters
    ----------
    n_measurements, n_hidden, n_atoms : int
        m, h and n.
    n_layers : int
        K, at least 2.
    threshold : float
        t, at least 0; kept.
    seed : int
        Seed of the weights.
    dtype : torch.dtype
        float32 or float64.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    threshold: Tensor

    def __init__(
        self,
        n_measurements: int,
        n_hidden: int,
        n_atoms: int,
        n_layers: int,
        *,
        threshold: float = 1.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_positive_int("n_measurements", n_measurements)
        check_positive_int("n_hidden", n_hidden)
        check_positive_int("n_atoms", n_atoms)
        if check_positive_int("n_layers", n_layers) < 2:
            raise ValueError(f"n_layers must be at least 2, got {n_layers}")
        threshold = check_number("threshold", threshold, minimum=0.0)
        self.register_buffer("threshold", torch.tensor(threshold, dtype=dtype))
        generator = torch.Generator().manual_seed(seed)
        sizes = [n_measurements, *[n_hidden] * (n_layers - 1), n_atoms]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(rows, columns, dtype=dtype).normal_(generator=generator))
            for columns, rows in pairwise(sizes)
        )

    @classmethod
    def like(cls, network: DenseNetwork, *, threshold: float = 1.0, seed: int = 0) -> FeedForward:
        """Build the network of equal depth whose number of parameters is nearest to another's."""
        m, n = network.dictionary.shape
        depth = network.n_layers
        square, linear = depth - 2, m + n
        # square h^2 + linear h = number of parameters
        root = math.sqrt(linear**2 + 4 * square * network.n_parameters)
        n_hidden = round(2 * network.n_parameters / (linear + root))
        dtype = network.dictionary.dtype
        return cls(m, n_hidden, n, depth, threshold=threshold, seed=seed, dtype=dtype)

    @property
    def n_parameters(self) -> int:
        """Number of learned numbers."""
        return sum(weight.numel() for weight in self.weights)

    def activations(self, b: Tensor) -> list[Tensor]:
        """Measurements b and the outputs x_1, ..., x_K of all layers, from b (batch, m) or (m,)."""
        check_tensor("b", b, (1, 2))
        found = [b]
        for weight in self.weights:
            u = found[-1] @ weight.mT / weight.shape[1] ** 0.5
            found.append(smooth_soft_threshold(u, self.threshold))
        return found

    def forward(self, b: Tensor) -> Tensor:
        """x_K (batch, n_atoms) of measurements b (batch, m); 1-D in, 1-D out."""
        return self.activations(b)[-1]
