"""Random crops of images, with noise, to learn a convolutional dictionary from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll._checks import check_dtype, check_number, check_positive_int
from fastunroll.data.images import as_planes


class NoisyCrops:
    """Square crops with white Gaussian noise: ``source(generator)`` returns (noisy, clean).

    Every image is equally likely, and every place in it. A batch depends on the state of the
    generator and on nothing else, which is what an exact resume of a training needs. The images
    are used where they lie, so they may be memory-mapped.

    Parameters
    ----------
    images : sequence of ndarray
        ``(height, width)``, or ``(height, width, n_channels)`` with the same number of channels;
        floating-point pixels. Those smaller than a crop are left out, with a warning.
    size : int
        Side of a crop, in pixels.
    batch_size : int
        Crops in a batch.
    sigma : float
        Standard deviation of the noise, at least 0, in the unit of the pixels.
    dtype : torch.dtype
        float32 or float64, of the batches.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, an image has NaN or Inf, or all are too small.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.floating]],
        size: int,
        batch_size: int,
        *,
        sigma: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.size = check_positive_int("size", size)
        self.batch_size = check_positive_int("batch_size", batch_size)
        self.sigma = check_number("sigma", sigma, minimum=0.0)
        self.dtype = check_dtype("dtype", dtype)
        planes = [
            as_planes(f"image {index} of images", image) for index, image in enumerate(images)
        ]
        self.images = [image for image in planes if min(image.shape[:2]) >= size]
        if not self.images:
            raise ValueError(f"images must hold at least one of {size} x {size} pixels or more")
        if len({image.shape[2] for image in self.images}) > 1:
            raise ValueError("images must all have the same number of channels")
        if small := len(planes) - len(self.images):
            warnings.warn(f"left out {small} images smaller than {size} x {size}", stacklevel=2)

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch: noisy and clean crops, each (batch_size, n_channels, size, size)."""
        chosen = torch.randint(len(self.images), (self.batch_size,), generator=generator).tolist()
        places = torch.rand(self.batch_size, 2, generator=generator, dtype=torch.float64).tolist()
        crops = []
        for index, (down, right) in zip(chosen, places, strict=True):
            image = self.images[index]
            row = int(down * (image.shape[0] - self.size + 1))
            column = int(right * (image.shape[1] - self.size + 1))
            crops.append(image[row : row + self.size, column : column + self.size])
        clean = torch.from_numpy(np.stack(crops)).to(self.dtype).permute(0, 3, 1, 2).contiguous()
        noise = torch.randn(clean.shape, generator=generator, dtype=self.dtype)
        return clean + self.sigma * noise, clean
