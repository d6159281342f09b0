"""Piecewise-linear shrinkage with learned values, as in ADMM-Net.

q(u) runs linearly between the values q_i at equally spaced knots p_i; beyond the last knot on
either side its last piece goes on. Source: Yang, Sun, Li, Xu, "Deep ADMM-Net for compressive
sensing MRI", NeurIPS 2016, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int
from fastunroll.functional import soft_threshold


class PiecewiseLinear(nn.Module):
    """A learned function of one number, applied to every entry; it starts as the soft threshold.

    Parameters
    ----------
    threshold : float
        Threshold of the soft threshold to start from, positive. It is a knot, so that the start is
        exact.
    n_pieces : int
        Number of pieces on either side of 0, at least 2; ``2 * n_pieces + 1`` learned numbers.
    dtype : torch.dtype
        float32 or float64.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Notes
    -----
    The knots are half a threshold apart, so they span ``n_pieces / 2`` thresholds on either side.
    """

    def __init__(
        self, threshold: float, n_pieces: int = 50, *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        threshold = check_number("threshold", threshold, minimum=0.0, exclusive=True)
        if check_positive_int("n_pieces", n_pieces) < 2:
            raise ValueError(f"n_pieces must be at least 2, got {n_pieces}")
        self.register_buffer("spacing", torch.tensor(threshold / 2, dtype=dtype))
        knots = self.spacing * torch.arange(-n_pieces, n_pieces + 1, dtype=dtype)
        self.values = nn.Parameter(soft_threshold(knots, threshold))

    spacing: Tensor

    def forward(self, u: Tensor) -> Tensor:
        """q(u), of the shape of u."""
        n_pieces = len(self.values) - 1
        place = u / self.spacing + n_pieces // 2
        left = place.detach().floor().clamp(0, n_pieces - 1)
        piece = left.nan_to_num().long()
        low, high = self.values[piece], self.values[piece + 1]
        return low + (place - left) * (high - low)
