"""Samples to learn a dictionary from: arrays in memory, or on disk and larger than memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll._checks import check_dtype, check_positive_int


class ArraySource:
    """Random rows of an array: ``source(generator)`` returns (batch_size, n_measurements).

    Only the rows of a batch are read, so a ``numpy.memmap`` or a ``.npy`` file may be larger than
    memory. The batch depends on the state of the generator and on nothing else, which is what an
    exact resume of a training needs.

    Parameters
    ----------
    samples : array or tensor (n_samples, n_measurements), or path of a ``.npy`` file
        Numbers of any real type. A file is mapped into memory, not read.
    batch_size : int
        Rows in a batch, drawn with replacement.
    dtype : torch.dtype
        float32 or float64, of the batches.
    transform : callable, optional
        Applied to every batch (batch_size, n_measurements), for instance to remove the means.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If an argument is not as above; in a call, if a batch contains NaN or Inf.

    Examples
    --------
    >>> source = ArraySource("patches.npy", 256, transform=lambda x: remove_mean(x)[0])
    >>> source(torch.Generator().manual_seed(0)).shape
    torch.Size([256, 64])
    """

    def __init__(
        self,
        samples: Tensor | NDArray[np.generic] | str | os.PathLike[str],
        batch_size: int,
        *,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.samples = _opened(samples)
        self.batch_size = check_positive_int("batch_size", batch_size)
        self.dtype = check_dtype("dtype", dtype)
        self.transform = transform

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Draw a batch: (batch_size, n_measurements)."""
        rows = torch.randint(len(self), (self.batch_size,), generator=generator)
        return self.take(rows.sort().values)  # a disk is read in one direction

    def take(self, rows: Tensor) -> Tensor:
        """Read the rows with the given indices (count,): (count, n_measurements)."""
        batch = torch.from_numpy(np.asarray(self.samples[rows.numpy()])).to(self.dtype)
        finite = torch.isfinite(batch).all(dim=1)
        if not bool(finite.all()):
            row = int(rows[~finite][0])
            raise ValueError(f"samples contains NaN or Inf (first seen in row {row})")
        return batch if self.transform is None else self.transform(batch)


def _opened(samples: object) -> NDArray[np.generic]:
    """Bring samples of any allowed kind to a NumPy array, without a copy."""
    if isinstance(samples, (str, os.PathLike)):
        try:
            samples = np.load(samples, mmap_mode="r")
        except ValueError as error:
            raise ValueError(f"samples: {samples} is not a .npy file of numbers") from error
    if isinstance(samples, Tensor):
        samples = samples.detach().numpy()
    if not isinstance(samples, np.ndarray):
        raise TypeError(
            f"samples must be an array, a tensor or the path of a .npy file, "
            f"got {type(samples).__name__}"
        )
    if samples.dtype.kind not in "fiu":
        raise TypeError(f"samples must hold real numbers, got {samples.dtype}")
    if samples.ndim != 2 or 0 in samples.shape:
        raise ValueError(
            f"samples must be (n_samples, n_measurements) and not empty, got shape {samples.shape}"
        )
    return samples
