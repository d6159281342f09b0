"""Measures of quality: torch tensors for codes, numpy arrays for images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll._checks import check_like, check_number, check_shape, check_tensor
from fastunroll._optional import import_optional

_SSIM_WINDOW = 11  # Side of the Gaussian window, in pixels.


class SupportScores(NamedTuple):
    """How well the support of the codes is found; each number is in [0, 1]."""

    precision: float
    recall: float
    f1: float


def nmse_db(estimate: Tensor, target: Tensor) -> float:
    """Normalised mean squared error: 10 log10(sum ||x - x*||^2 / sum ||x*||^2), in dB.

    The sums run over all samples, in float64; so samples with large codes weigh more. Report
    `sample_nmse_db` beside it.

    Parameters
    ----------
    estimate, target : Tensor
        x and x*, ``(batch, n_atoms)`` or ``(n_atoms,)``.

    Returns
    -------
    float
        -inf if the estimate is exact (also if all is zero); +inf if it is not and the target is
        zero.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not dense float tensors of one shape, or are empty.
    """
    error, energy = _squares(estimate, target)
    return float(_ratio_db(error.sum(), energy.sum()))


def sample_nmse_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Normalised mean squared error of each sample, in dB.

    Parameters
    ----------
    estimate, target : Tensor
        x and x*, ``(batch, n_atoms)`` or ``(n_atoms,)``.

    Returns
    -------
    Tensor
        10 log10(||x - x*||^2 / ||x*||^2), ``(batch,)`` or ``()``, float64. The values at zero are
        those of `nmse_db`.

    Raises
    ------
    TypeError, ValueError
        As `nmse_db`.
    """
    return _ratio_db(*_squares(estimate, target))


def mean_absolute_error(estimate: Tensor, target: Tensor) -> float:
    """Mean of |x - x*| over all entries, for tensors of one shape; errors as `nmse_db`."""
    _check_pair(estimate, target)
    return float((estimate.double() - target.double()).abs().mean())


def support_scores(estimate: Tensor, target: Tensor, tolerance: float = 0.0) -> SupportScores:
    """Precision, recall and F1 of the support, counted over all entries of the batch.

    An entry is in the support if its absolute value is greater than ``tolerance``.

    Parameters
    ----------
    estimate, target : Tensor
        x and x*, ``(batch, n_atoms)`` or ``(n_atoms,)``.
    tolerance : float
        At least 0; 0 counts the exact non-zeros.

    Returns
    -------
    SupportScores
        All three are 1 if both supports are empty, and 0 if just one is.

    Raises
    ------
    TypeError, ValueError
        As `nmse_db`, or if ``tolerance`` is negative.
    """
    _check_pair(estimate, target)
    check_number("tolerance", tolerance, minimum=0)
    found, true = estimate.abs() > tolerance, target.abs() > tolerance
    n_found, n_true, n_hits = (int(s.sum()) for s in (found, true, found & true))
    if n_found == n_true == 0:
        return SupportScores(1.0, 1.0, 1.0)
    return SupportScores(
        precision=n_hits / max(n_found, 1),
        recall=n_hits / max(n_true, 1),
        f1=2 * n_hits / (n_found + n_true),
    )


def psnr(image: NDArray[np.floating], reference: NDArray[np.floating], peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio, in dB; inf for equal images.

    Parameters
    ----------
    image, reference : ndarray
        ``(height, width)`` or ``(height, width, 3)``.
    peak : float
        Largest possible pixel value.

    Raises
    ------
    ValueError
        If the shapes differ or are others, or ``peak`` is not positive.
    ImportError
        If scikit-image is not installed.
    """
    _check_images(image, reference, peak)
    metrics = import_optional("skimage.metrics")
    with np.errstate(divide="ignore"):
        return float(metrics.peak_signal_noise_ratio(reference, image, data_range=peak))


def ssim(image: NDArray[np.floating], reference: NDArray[np.floating], peak: float = 1.0) -> float:
    """Structural similarity, with the Gaussian window of the paper; 1 for equal images.

    Parameters
    ----------
    image, reference : ndarray
        ``(height, width)`` or ``(height, width, 3)``, at least 11 pixels high and wide.
    peak : float
        Largest possible pixel value.

    Raises
    ------
    ValueError
        If the shapes differ or are others, or ``peak`` is not positive.
    ImportError
        If scikit-image is not installed.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004.
    """
    _check_images(image, reference, peak)
    if min(image.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f"image must be at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels, got {image.shape}"
        )
    return float(
        import_optional("skimage.metrics").structural_similarity(
            reference,
            image,
            data_range=peak,
            channel_axis=2 if image.ndim == 3 else None,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _check_pair(estimate: Tensor, target: Tensor) -> None:
    """Require two codes of one shape, dtype and device that are not empty."""
    check_tensor("estimate", estimate, (1, 2))
    check_tensor("target", target, (1, 2))
    check_like("estimate", estimate, "target", target)
    check_shape("estimate", estimate, tuple(target.shape), "that of target")
    if estimate.numel() == 0:
        raise ValueError(f"estimate must not be empty, got shape {tuple(estimate.shape)}")


def _squares(estimate: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms of the error and of the target, per sample, in float64."""
    _check_pair(estimate, target)
    estimate, target = estimate.detach().double(), target.detach().double()
    return (estimate - target).square().sum(dim=-1), target.square().sum(dim=-1)


def _ratio_db(error: Tensor, energy: Tensor) -> Tensor:
    """10 log10(error / energy), where an error of zero is -inf whatever the energy."""
    return 10 * torch.where(error == 0, error, error / energy).log10()


def _check_images(
    image: NDArray[np.floating], reference: NDArray[np.floating], peak: float
) -> None:
    """Require two gray or colour images of one shape and a positive peak."""
    check_number("peak", peak, minimum=0, exclusive=True)
    if image.shape != reference.shape:
        raise ValueError(f"image has shape {image.shape} but reference has {reference.shape}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image must be (height, width) or (height, width, 3), got {image.shape}")
