r"""Where the filters of a convolutional dictionary lie, and its products with codes and signals.

With the patches of a signal at all places as rows, P = unfold(r), D^T r is a product of P with the
matrix of the filters, and D z is its transpose: the products of the codes with the filters, added
up where they lie, fold(z D). Two matrix products thus do what strided convolutions of few channels
do several times slower. Signals with one axis are images of height 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastunroll._checks import check_like, check_positive_int, check_tensor

_GRID = 16
"""Frequencies that `Convolution.lipschitz_constant` tries for each block of a filter."""


@dataclass(frozen=True)
class Convolution:
    """A grid of filters: one at every ``stride``-th pixel at which all of it is inside the signal.

    Attributes
    ----------
    filter_shape : (channels, length) or (channels, height, width)
        Shape of one filter.
    stride : int
        Distance of neighbouring places, in pixels; at most the size of a filter.

    Raises
    ------
    TypeError, ValueError
        With the name of the attribute that does not fit.
    """

    filter_shape: tuple[int, ...]
    stride: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if len(self.filter_shape) not in (2, 3):
            raise ValueError(
                "filter_shape must be (channels, length) or (channels, height, width), got "
                f"{self.filter_shape}"
            )
        for size in self.filter_shape:
            check_positive_int("filter_shape", size)
        if check_positive_int("stride", self.stride) > min(self.kernel):
            raise ValueError(
                f"stride must be at most the size of a filter {self.kernel}, got {self.stride}: "
                "pixels between the filters would be lost"
            )

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of a filter in pixels, without its channels."""
        return self.filter_shape[1:]

    def check(self, name: str, signal: object, like: Tensor) -> None:
        """Require signals (batch, channels, *size) of which filters reach every pixel.

        Raises
        ------
        TypeError
            If it is not a dense tensor with the dtype of the filters ``like``.
        ValueError
            If its shape does not fit, or it is on another device.
        """
        signal = check_tensor(name, signal, (len(self.filter_shape) + 1,))
        check_like(name, signal, "the filters", like)
        shape = tuple(signal.shape)
        if shape[1] != self.filter_shape[0]:
            raise ValueError(f"{name} must have {self.filter_shape[0]} channel(s), got {shape}")
        for n, k in zip(shape[2:], self.kernel, strict=True):
            if n < k:
                raise ValueError(f"{name} is smaller than a filter {self.kernel}: shape {shape}")
            if rest := (n - k) % self.stride:
                raise ValueError(
                    f"{name} must have {k} + {self.stride} i pixels along an axis, or filters do "
                    f"not reach all of them: {n - rest} or {n - rest + self.stride} and not {n}; "
                    f"got shape {shape}"
                )

    def places(self, size: torch.Size) -> list[int]:
        """Number of places along every axis of a signal."""
        return [(n - k) // self.stride + 1 for n, k in zip(size, self.kernel, strict=True)]

    def unfold(self, signal: Tensor) -> Tensor:
        """Patches (batch * places, channels * height * width) of signals (batch, channels, *size).

        Places run as in the signal, the last axis fastest.
        """
        patches = signal
        for axis, k in enumerate(self.kernel, start=2):
            patches = patches.unfold(axis, k, self.stride)
        return patches.movedim(1, len(self.kernel) + 1).reshape(-1, math.prod(self.filter_shape))

    def fold(self, codes: Tensor, filters: Tensor, like: Tensor) -> Tensor:
        """Sum of filters at all places, D z.

        Parameters
        ----------
        codes : (batch * places, n_filters)
            z, rows as those of `unfold`.
        filters : (n_filters, channels * height * width)
            D.
        like : (batch, channels, *size)
            A signal of the shape wanted.

        Returns
        -------
        Tensor
            (batch, channels, *size).
        """
        (batch, channels, *size), n_axes = like.shape, len(self.kernel)
        sums = (filters.mT @ codes.mT).reshape(
            channels, *self.kernel, batch, *self.places(like.shape[2:])
        )
        order = [1 + n_axes, 0]
        for pixel in range(1, 1 + n_axes):
            place = pixel + 1 + n_axes
            sums = _overlap(sums, pixel, place, self.stride)
            order += [place, pixel]
        shape = [n * self.stride for n in sums.shape[-n_axes:]]
        signal = sums.permute(order).reshape(batch, channels, *shape)
        for axis, n in enumerate(size, start=2):
            signal = signal.narrow(axis, 0, n)
        return signal

    def decode(self, codes: Tensor, filters: Tensor) -> Tensor:
        """Rebuild signals (batch, channels, *size) from codes z (batch, n_filters, *places).

        Parameters
        ----------
        codes : (batch, n_filters, *places)
            z.
        filters : (n_filters, channels * height * width)
            D.
        """
        size = [
            (n - 1) * self.stride + k for n, k in zip(codes.shape[2:], self.kernel, strict=True)
        ]
        like = codes.new_empty(len(codes), self.filter_shape[0], *size, device="meta")
        return self.fold(codes.movedim(1, -1).flatten(0, -2), filters, like)

    @torch.no_grad()
    def lipschitz_constant(self, filters: Tensor) -> float:
        """Upper bound of ||D||_2^2, about 4 % above it for large images.

        With the pixels of a block of s x s as channels, D D^T is cut out of a convolution without
        stride on an infinite plane. The norm of that is the largest eigenvalue, over all
        frequencies, of a matrix of trigonometric polynomials. It is computed on a grid; a
        polynomial of degree d falls from its maximum no faster than cos(d t) (M. Riesz, 1914),
        which bounds what lies between. float64.

        Parameters
        ----------
        filters : (n_filters, channels * height * width)
            D.
        """
        height, width = _lift(self.kernel)
        down, right = self.stride if len(self.kernel) == 2 else 1, self.stride
        planes = filters.double().reshape(len(filters), -1, height, width)
        planes = pad(planes, (0, -width % right, 0, -height % down))
        blocks: Tensor = planes.unflatten(3, (-1, right)).unflatten(2, (-1, down))
        blocks = blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        size = [_GRID * n if n > 1 else 1 for n in blocks.shape[2:]]
        spectra = torch.fft.rfft2(blocks, s=size).flatten(2).permute(2, 1, 0)
        largest = float(torch.linalg.eigvalsh(spectra @ spectra.mH).max())
        fall = (
            math.cos(math.pi * (n - 1) / m) for n, m in zip(blocks.shape[2:], size, strict=True)
        )
        return largest / math.prod(fall)


def _overlap(patches: Tensor, pixel: int, place: int, stride: int) -> Tensor:
    """Add overlapping patches along one axis of the signal.

    Of the two axes, ``pixel`` becomes the pixel in a block of ``stride``, and ``place`` the block.
    """
    shape, n_places = list(patches.shape), patches.shape[place]
    parts = patches.split(stride, pixel)
    shape[pixel], shape[place] = stride, n_places + len(parts) - 1
    sums = patches.new_zeros(shape)
    for block, part in enumerate(parts):
        window = sums.narrow(pixel, 0, part.shape[pixel]).narrow(place, block, n_places)
        window.add_(part)
    return sums


def _lift(size: Sequence[int]) -> tuple[int, int]:
    """Height and width; signals with one axis have the height 1."""
    return (1, size[0]) if len(size) == 1 else (size[0], size[1])
