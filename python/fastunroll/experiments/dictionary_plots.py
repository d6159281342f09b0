"""Figures of learned dictionaries, and images before and after."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll.dictionary import match_atoms
from fastunroll.dictionary.mosaic import mosaic
from fastunroll.experiments.plots import STYLE, panels


def matched_atoms(dictionary: Tensor, target: Tensor) -> Figure:
    """Draw true atoms, the learned atoms matched with them, and how well they agree.

    Parameters
    ----------
    dictionary, target : (n_measurements, n_atoms)
        The learned and the true dictionary. Both are shown with the best agreement first.

    Returns
    -------
    Figure

    Raises
    ------
    TypeError, ValueError, ImportError
        As `fastunroll.dictionary.match_atoms`.
    """
    found = match_atoms(dictionary, target).apply(dictionary.detach())
    cosine = (normalize(found, dim=0) * normalize(target, dim=0)).sum(dim=0).cpu()
    with matplotlib.rc_context(STYLE):
        figure, (left, middle, right) = panels(3, (10.0, 3.6))
        for axes, atoms, title in ((left, target, "true"), (middle, found, "learned, matched")):
            axes.imshow(mosaic(atoms, cosine), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title)
            axes.axis("off")
        right.plot(cosine.sort(descending=True).values.numpy())
        right.set(xlabel="atom", ylabel="cosine with the true atom", title="agreement")
        right.set_ylim(min(0.0, float(cosine.min())), 1.02)
    return figure


def image_row(pictures: Mapping[str, NDArray[np.floating]]) -> Figure:
    """Draw images side by side.

    Parameters
    ----------
    pictures : mapping of str to ndarray
        Titles and images of one shape, ``(height, width)`` or ``(height, width, 3)``, in [0, 1];
        values outside are clipped.

    Returns
    -------
    Figure
        At 100 dots per inch an image has its own size in pixels, if it is 300 wide or more.
    """
    height, width = next(iter(pictures.values())).shape[:2]
    side = max(3.0, width / 100)
    with matplotlib.rc_context(STYLE):
        figure, row = panels(len(pictures), (len(pictures) * side, side * height / width + 0.3))
        for axes, (title, picture) in zip(np.atleast_1d(row), pictures.items(), strict=True):
            axes.imshow(picture.clip(0, 1), cmap="gray", vmin=0, vmax=1)
            axes.set_title(title)
            axes.axis("off")
    return figure
