"""Images with noise, and how denoised ones are scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll.data import load_images
from fastunroll.data.seeds import stream_seed
from fastunroll.metrics import psnr, ssim

Image = NDArray[np.floating]


def images(folder: Path | None, side: int, n_train: int) -> tuple[list[Image], list[Image]]:
    """Training and test images, gray in [0, 1]; see `fastunroll.data.load_images`.

    Those with less than ``side`` pixels along an axis are left out, with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no image of a split in it.
    ValueError
        If less than ``n_train`` training images, or no test image, are left.
    """
    found = [load_images(folder, split="train"), load_images(folder, split="test")]
    train, test = (
        [image.astype(np.float32) for image in split if min(image.shape) >= side] for split in found
    )
    if len(train) < n_train or not test:
        raise ValueError(
            f"data must hold at least {n_train} training images and a test image of {side} x "
            f"{side} pixels or more, got {len(train)} and {len(test)}"
        )
    if small := sum(map(len, found)) - len(train) - len(test):
        warnings.warn(f"left out {small} images smaller than {side} x {side}", stacklevel=2)
    return train, test


def centre(image: Image, side: int) -> Image:
    """The middle of an image, at most ``side`` pixels high and wide."""
    top, left = (max(0, (n - side) // 2) for n in image.shape)
    return image[top : top + side, left : left + side]


def with_noise(clean: Sequence[Image], sigma: float, seed: int) -> list[Image]:
    """Add white Gaussian noise of a standard deviation, the same for the same seed."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "test"))
    return [
        image + np.float32(sigma) * torch.randn(image.shape, generator=generator).numpy()
        for image in clean
    ]


def crops_of(clean: Sequence[Image], side: int, count: int, seed: int) -> Tensor:
    """Random square crops (len(clean) * count, 1, side, side), ``count`` of every image."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "test"))
    crops = []
    for image in clean:
        places = torch.rand(count, 2, generator=generator, dtype=torch.float64).tolist()
        for down, right in places:
            row, column = (
                int(place * (n - side + 1))
                for place, n in zip((down, right), image.shape, strict=True)
            )
            crops.append(torch.from_numpy(image[row : row + side, column : column + side]))
    return torch.stack(crops)[:, None]


def crop_psnr(estimate: Tensor, clean: Tensor) -> dict[str, float]:
    """PSNR in dB of crops (count, 1, side, side), mean over them, by both definitions.

    Estimates are clipped to [0, 1]. ``"paper"`` has the largest pixel of each clean crop as its
    peak, as the PUDLE paper does; ``"standard"`` has 1.
    """
    errors = (estimate.clamp(0, 1) - clean).double().square().flatten(1).mean(dim=1)
    standard = -10 * errors.log10()
    peaks = 20 * clean.double().flatten(1).amax(dim=1).log10()
    return {"paper": float((standard + peaks).mean()), "standard": float(standard.mean())}


def image_scores(
    denoise: Callable[[Image], NDArray[np.floating]],
    clean: Sequence[Image],
    noisy: Sequence[Image],
) -> dict[str, Any]:
    """Mean PSNR in dB, by both definitions, and SSIM of whole images; estimates are clipped."""
    scores = []
    for true, image in zip(clean, noisy, strict=True):
        reference = true.astype(np.float64)
        estimate = np.clip(denoise(image), 0, 1).astype(np.float64)
        largest = float(reference.max())
        scores.append(
            (
                psnr(estimate, reference, peak=largest),
                psnr(estimate, reference),
                ssim(estimate, reference),
            )
        )
    means = np.mean(scores, axis=0).tolist()
    return {**dict(zip(("paper", "standard", "SSIM"), means, strict=True)), "images": len(scores)}
