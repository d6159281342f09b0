"""Whole images by a convolutional dictionary with a stride: the average over all its shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from fastunroll.data.images import as_planes
from fastunroll.dictionary.convolutional import ConvolutionalPUDLE
from fastunroll.dictionary.cscnet import CSCNet


def average_over_shifts(
    x: Tensor,
    estimate: Callable[[Tensor], Tensor],
    kernel: Sequence[int],
    stride: int,
    shifts: Iterable[Sequence[int]] | None = None,
) -> Tensor:
    """Average the estimates of a signal over shifts of a grid of filters.

    Each shift holds all places of its grid at which a filter overlaps the signal, which is extended
    by reflection; so every pixel, at the border too, is covered by as many filters, and any size
    of at least a filter will do.

    Parameters
    ----------
    x : (batch, channels, *size)
        Signals with one axis or two.
    estimate : callable
        Maps a signal (batch, channels, *larger) to its estimate, of the same shape.
    kernel : sequence of int
        Size of a filter along every axis, in pixels.
    stride : int
        Distance of neighbouring places; there are stride^d shifts for d axes.
    shifts : iterable of sequence of int, optional
        Those to average over, each with a number from 0 to ``stride - 1`` per axis; all by default.

    Returns
    -------
    Tensor
        The average, of the shape of ``x``; differentiable if ``estimate`` is.

    Raises
    ------
    ValueError
        If a signal is smaller than a filter.

    References
    ----------
    Simon, Elad, "Rethinking the CSC Model for Natural Images", NeurIPS 2019.
    """
    size = x.shape[2:]
    if any(n < k for n, k in zip(size, kernel, strict=True)):
        raise ValueError(f"x is smaller than a filter {tuple(kernel)}: shape {tuple(x.shape)}")
    total = torch.zeros_like(x)
    chosen = list(product(range(stride), repeat=len(size)) if shifts is None else shifts)
    for shift in chosen:
        pads: list[int] = []
        inside = [slice(None), slice(None)]
        for n, k, s in zip(size, kernel, shift, strict=True):
            before = k - 1 - s
            last = (n - 1 + before) // stride * stride - before  # last place that overlaps
            pads = [before, last + k - n, *pads]
            inside.append(slice(before, before + n))
        total = total + estimate(pad(x, pads, mode="reflect"))[tuple(inside)]
    return total / len(chosen)


@torch.no_grad()
def denoise_by_shifts(
    model: ConvolutionalPUDLE | CSCNet, image: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Denoise a whole image with a convolutional dictionary.

    Parameters
    ----------
    model : ConvolutionalPUDLE or CSCNet
        Of images with one or three channels. A model for gray images treats the channels of a
        colour image one by one.
    image : ndarray
        Noisy image, ``(height, width)`` or ``(height, width, 3)``, at least as large as a filter.

    Returns
    -------
    ndarray
        The estimate, of the shape of ``image``, not clipped.

    Raises
    ------
    TypeError, ValueError
        If the image is not as above, has NaN or Inf, or does not suit the model.
    """
    channels, *kernel = model.convolution.filter_shape
    planes = as_planes("image", image)
    if planes.shape[2] not in (1, 3) or len(kernel) != 2:
        raise ValueError(
            f"image must be (height, width) or (height, width, 3), and the model's filters have "
            f"two axes; got {image.shape} and filters {model.convolution.filter_shape}"
        )
    if channels != 1 and channels != planes.shape[2]:
        raise ValueError(f"image must have the model's {channels} channels, got {image.shape}")
    if any(n < k for n, k in zip(planes.shape, kernel, strict=False)):
        raise ValueError(
            f"image must be at least as large as a filter, {kernel[0]} x {kernel[1]}, "
            f"got {planes.shape[0]} x {planes.shape[1]}"
        )
    x = torch.from_numpy(planes).permute(2, 0, 1).to(next(model.parameters()))
    x = x[:, None] if channels == 1 else x[None]
    average = average_over_shifts(
        x, lambda x: model.decode(model(x)), kernel, model.convolution.stride
    )
    return (
        average.reshape(-1, *image.shape[:2])
        .permute(1, 2, 0)
        .reshape(image.shape)
        .cpu()
        .double()
        .numpy()
    )
