"""Patches of images: random ones to train on, overlapping ones to denoise with."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import fold, pad, unfold

from fastunroll._checks import (
    check_dictionary,
    check_dtype,
    check_generator,
    check_positive_int,
    check_shape,
    check_tensor,
)
from fastunroll.data.images import find_images, readable_images


def sample_patches(
    images: Sequence[NDArray[np.float64]],
    size: int,
    count: int,
    generator: torch.Generator,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Cut square patches at random places of random images.

    Every image is equally likely, and every place in it.

    Parameters
    ----------
    images : sequence of ndarray
        Gray images ``(height, width)``. Those smaller than a patch are left out, with a warning.
    size : int
        Side of a patch, in pixels.
    count : int
        Number of patches.
    generator : torch.Generator
        Source of all random numbers, on the CPU.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    Tensor
        Patches ``(count, size * size)``, row by row.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or every image is smaller than a patch.
    """
    check_positive_int("size", size)
    check_positive_int("count", count)
    check_generator("generator", generator)
    check_dtype("dtype", dtype)
    usable = [image for image in images if min(_check_image("images", image).shape) >= size]
    if not usable:
        raise ValueError(f"images must hold at least one of {size} x {size} pixels or more")
    if len(usable) < len(images):
        small = len(images) - len(usable)
        warnings.warn(f"left out {small} images smaller than {size} x {size}", stacklevel=2)

    chosen = torch.randint(len(usable), (count,), generator=generator)
    places = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    patches = torch.empty(count, size, size, dtype=dtype)
    for index, image in enumerate(usable):
        here = chosen == index
        windows = torch.tensor(image).unfold(0, size, 1).unfold(1, size, 1)
        rows, columns = (places[here] * torch.tensor(windows.shape[:2])).long().T
        patches[here] = windows[rows, columns].to(dtype)
    return patches.flatten(1)


def folder_patches(
    folder: str | os.PathLike[str],
    size: int,
    count: int,
    generator: torch.Generator,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Cut about ``count`` square patches from all images of a folder, as many from each.

    The images are read in turn, at every depth, so that they may be larger than the memory.

    Parameters
    ----------
    folder : path
        Where to look for images.
    size, count, generator, dtype
        See `sample_patches`.

    Returns
    -------
    Tensor
        Patches ``(n_patches, size * size)``, row by row.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no readable image in it.
    TypeError, ValueError
        As `sample_patches`.
    """
    paths = find_images(folder, split="all")
    each = -(-check_positive_int("count", count) // len(paths))
    patches, n_images = [], 0
    for image in readable_images(paths):
        n_images += 1
        if min(image.shape) >= check_positive_int("size", size):
            patches.append(sample_patches([image], size, each, generator, dtype=dtype))
    if not patches:
        raise ValueError(f"{folder} must hold an image of at least {size} x {size} pixels")
    if len(patches) < n_images:
        small = n_images - len(patches)
        warnings.warn(f"left out {small} images smaller than {size} x {size}", stacklevel=2)
    return torch.cat(patches)


def remove_mean(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Split patches ``(count, n_pixels)`` into zero-mean ones and their means ``(count, 1)``."""
    means = patches.mean(dim=1, keepdim=True)
    return patches - means, means


@torch.no_grad()
def denoise_image(
    image: NDArray[np.float64],
    encode: Callable[[Tensor], Tensor],
    dictionary: Tensor,
    patch_size: int,
    stride: int = 1,
    batch_size: int = 4096,
) -> NDArray[np.float64]:
    """Denoise an image by sparse coding of its overlapping patches.

    Each patch, less its mean, is encoded and rebuilt from its code; where patches overlap, they
    are averaged. Where the stride does not divide the image, it is extended by reflection.

    Parameters
    ----------
    image : ndarray
        Noisy gray image ``(height, width)``.
    encode : callable
        Maps patches ``(batch, n_pixels)`` to codes ``(batch, n_atoms)``.
    dictionary : Tensor
        ``(n_pixels, n_atoms)`` with n_pixels = patch_size^2. Its dtype and device are those of the
        patches.
    patch_size : int
        Side of a patch, in pixels.
    stride : int
        Distance of neighbouring patches, in pixels, at most ``patch_size``.
    batch_size : int
        Number of patches to encode at once; rounded to whole rows of patches.

    Returns
    -------
    ndarray
        The estimate ``(height, width)``, float64, not clipped.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the image is smaller than a patch.

    References
    ----------
    Elad, Aharon, "Image denoising via sparse and redundant representations over learned
    dictionaries", IEEE TIP 15(12), 2006.
    """
    dictionary = check_dictionary("dictionary", dictionary)
    check_positive_int("patch_size", patch_size)
    check_positive_int("batch_size", batch_size)
    n_pixels, n_atoms = dictionary.shape
    if n_pixels != patch_size**2:
        raise ValueError(
            f"dictionary must have patch_size^2 = {patch_size**2} rows, got {n_pixels}"
        )
    if check_positive_int("stride", stride) > patch_size:
        raise ValueError(f"stride must be at most patch_size = {patch_size}, got {stride}")
    height, width = _check_image("image", image).shape
    if min(height, width) < patch_size:
        raise ValueError(
            f"image must have at least {patch_size} x {patch_size} pixels, got {height} x {width}"
        )

    pixels = torch.tensor(image).to(dictionary)[None, None]
    bottom, right = ((patch_size - n) % stride for n in (height, width))
    pixels = pad(pixels, (0, right, 0, bottom), mode="reflect")
    total, cover = torch.zeros_like(pixels), torch.zeros_like(pixels)
    n_rows, n_columns = ((n - patch_size) // stride + 1 for n in pixels.shape[2:])
    rows_at_once = max(1, batch_size // n_columns)
    for first in range(0, n_rows, rows_at_once):
        last = min(first + rows_at_once, n_rows) - 1
        strip = slice(first * stride, last * stride + patch_size)
        patches, means = remove_mean(
            unfold(pixels[:, :, strip], patch_size, stride=stride)[0].T.contiguous()
        )
        codes = check_tensor("encode(patches)", encode(patches), (2,))
        check_shape("encode(patches)", codes, (len(patches), n_atoms), "(batch, n_atoms)")
        estimates = (codes @ dictionary.T + means).T[None]
        size = tuple(total[:, :, strip].shape[2:])
        total[:, :, strip] += fold(estimates, size, patch_size, stride=stride)
        cover[:, :, strip] += fold(torch.ones_like(estimates), size, patch_size, stride=stride)
    estimate = (total / cover)[0, 0, :height, :width]
    return estimate.cpu().numpy().astype(np.float64)


def _check_image(name: str, image: object) -> NDArray[np.float64]:
    """Require a gray image of floating-point pixels."""
    if not isinstance(image, np.ndarray) or image.ndim != 2:
        found = getattr(image, "shape", type(image).__name__)
        raise ValueError(f"{name}: expected an array (height, width), got {found}")
    if not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"{name}: expected floating-point pixels in [0, 1], got {image.dtype}")
    return image
