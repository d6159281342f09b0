"""The atoms of a dictionary of patches as one picture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastunroll._checks import check_dictionary, check_shape, check_tensor


def mosaic(dictionary: Tensor, usage: Tensor | None = None) -> NDArray[np.uint8]:
    """Draw every atom as a patch, row by row.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        With n_measurements = size^2 for gray patches and 3 size^2 for colour patches, whose
        measurements are in the order row, column, colour. Other atoms are drawn as one row each.
    usage : (n_atoms,), optional
        How much each atom is used, such as its mean magnitude in codes: the most used come first.

    Returns
    -------
    ndarray
        Pixels ``(height, width)``, or ``(height, width, 3)`` for colour. Each atom has its own
        contrast; a middle gray is zero.

    Raises
    ------
    TypeError, ValueError
        If the dictionary or the usage are not as above.
    """
    dictionary = check_dictionary("dictionary", dictionary).detach().cpu()
    n_measurements, n_atoms = dictionary.shape
    if usage is not None:
        check_shape("usage", check_tensor("usage", usage, (1,)), (n_atoms,), "n_atoms")
        order = usage.detach().cpu().argsort(descending=True, stable=True)
        dictionary = dictionary[:, order]
    atoms = (dictionary / dictionary.abs().amax(dim=0)).T.numpy()
    shape = _tile_shape(n_measurements)
    rows, columns, channels = shape
    across = 1 if rows == 1 else math.ceil(math.sqrt(n_atoms))
    down = math.ceil(n_atoms / across)
    # Tiles have a border to the left and above; the picture, one to the right and below as well.
    border = 1 if rows > 1 else 0
    tiles = np.ones((down * across, rows + border, columns + border, channels))
    tiles[:n_atoms, border:, border:] = atoms.reshape(n_atoms, *shape)
    tiles = tiles.reshape(down, across, *tiles.shape[1:]).swapaxes(1, 2)
    picture = tiles.reshape(down * (rows + border), across * (columns + border), channels)
    picture = np.pad(picture, ((0, border), (0, border), (0, 0)), constant_values=1)
    pixels = np.rint(127.5 * (picture + 1)).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def usage_of(codes: Tensor) -> Tensor:
    """Mean magnitude of each atom (n_atoms,) in codes (batch, n_atoms)."""
    return check_tensor("codes", codes, (2,)).detach().abs().mean(dim=0)


def _tile_shape(n_measurements: int) -> tuple[int, int, int]:
    """Height, width and number of colours of an atom."""
    for channels in (1, 3):
        size = math.isqrt(n_measurements // channels)
        if size > 1 and channels * size**2 == n_measurements:
            return size, size, channels
    return 1, n_measurements, 1
