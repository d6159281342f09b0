"""What ``fastunroll train`` and ``evaluate`` work on: sparse codes, and noisy image patches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll.data import SparseProblem, remove_mean, sample_patches
from fastunroll.dictionary import ConvolutionalPUDLE, CSCNet
from fastunroll.experiments.recipe import Examples
from fastunroll.losses import supervised_loss
from fastunroll.metrics import mean_absolute_error, nmse_db, psnr, sample_nmse_db, support_scores
from fastunroll.nn import UnrolledNetwork

GRAY_LEVELS = 255


class Task(ABC):
    """Examples to train on, the error to minimise, and the metrics of codes."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Examples:
        """Draw examples."""

    @abstractmethod
    def error(self, codes: Tensor, target: Tensor) -> Tensor:
        """Scalar to minimise."""

    @abstractmethod
    def metrics(self, codes: Tensor, examples: Examples) -> dict[str, float]:
        """All figures worth a look, by name."""


def dictionary_of(network: UnrolledNetwork) -> Tensor:
    """Dictionary (n_measurements, n_atoms) of a network of vectors; ValueError for other networks.

    It is fixed in most networks, and learned in some.
    """
    if isinstance(network, ConvolutionalPUDLE | CSCNet):
        raise ValueError(
            f"the network, a {type(network).__name__}, takes images; expected one that takes "
            "vectors (see fastunroll denoise)"
        )
    dictionary = network.dictionary
    assert isinstance(dictionary, Tensor)
    return dictionary.detach()


def patch_size(dictionary: Tensor) -> int:
    """Side of the square patches of a dictionary; ValueError if they are not square."""
    size = math.isqrt(len(dictionary))
    if size**2 != len(dictionary):
        raise ValueError(
            f"the network takes {len(dictionary)} measurements, which are no square patch; "
            "expected one trained on patches"
        )
    return size


@dataclass(frozen=True)
class SparseCodes(Task):
    """Find the sparse codes behind their measurements."""

    problem: SparseProblem

    def sample(self, count: int, generator: torch.Generator) -> Examples:
        """Draw measurements and their codes."""
        return Examples(*self.problem.sample(count, generator))

    def error(self, codes: Tensor, target: Tensor) -> Tensor:
        """Squared error of the codes."""
        return supervised_loss(codes, target)

    def metrics(self, codes: Tensor, examples: Examples) -> dict[str, float]:
        """Errors and support recovery."""
        samples = sample_nmse_db(codes, examples.target)
        scores = support_scores(codes, examples.target)
        return {
            "NMSE (dB)": nmse_db(codes, examples.target),
            "NMSE, median sample (dB)": float(samples.median()),
            "NMSE, worst sample (dB)": float(samples.max()),
            "mean absolute error": mean_absolute_error(codes, examples.target),
            "support precision": scores.precision,
            "support recall": scores.recall,
            "support F1": scores.f1,
        }


@dataclass(frozen=True)
class NoisyPatches(Task):
    """Remove white Gaussian noise from image patches, whose mean is taken off first."""

    images: Sequence[NDArray[np.float64]]
    dictionary: Tensor
    sigma: float
    """Standard deviation of the noise, of 255 gray levels."""

    def sample(self, count: int, generator: torch.Generator) -> Examples:
        """Draw noisy patches and the clean ones, both less the mean of the noisy one."""
        clean = sample_patches(self.images, patch_size(self.dictionary), count, generator)
        noise = torch.randn(clean.shape, generator=generator) * (self.sigma / GRAY_LEVELS)
        noisy, means = remove_mean(clean + noise)
        return Examples(noisy, clean - means)

    def error(self, codes: Tensor, target: Tensor) -> Tensor:
        """Squared error of the rebuilt patches."""
        return supervised_loss(codes @ self.dictionary.T, target)

    def metrics(self, codes: Tensor, examples: Examples) -> dict[str, float]:
        """PSNR before and after, and how sparse the codes are."""
        clean = examples.target.numpy()
        return {
            "PSNR noisy (dB)": psnr(examples.measurements.numpy(), clean),
            "PSNR denoised (dB)": psnr((codes @ self.dictionary.T).numpy(), clean),
            "share of non-zeros": float((codes != 0).double().mean()),
        }
