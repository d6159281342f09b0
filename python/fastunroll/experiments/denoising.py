"""LPG-Net on real image patches: denoising over an overcomplete DCT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll.data import (
    denoise_image,
    load_images,
    overcomplete_dct,
    remove_mean,
    sample_patches,
)
from fastunroll.experiments.methods import SOLVERS, Encoder, tune
from fastunroll.experiments.recipe import Examples, train_lpg_net
from fastunroll.experiments.settings import Settings
from fastunroll.losses import supervised_loss
from fastunroll.metrics import psnr, ssim
from fastunroll.nn import LPGNet
from fastunroll.prepared import prepare

GRAY_LEVELS = 255
Image = NDArray[np.float64]


def denoising(
    settings: Settings, data: Path | None, progress: bool
) -> tuple[LPGNet, dict[str, Any], dict[str, Image]]:
    """Train on noisy patches of the training images, test on patches and whole test images.

    Returns
    -------
    network : LPGNet
    result : dict
        PSNR of patches and images in dB, SSIM of images, for every method.
    pictures : dict of ndarray
        One test image: clean, noisy, and denoised by every method.
    """
    s = settings
    dictionary = overcomplete_dct(s.patch_size, s.n_patch_atoms)
    train, test = load_images(data, split="train"), load_images(data, split="test")
    generator = torch.Generator().manual_seed(1000 * (s.seed + 1) + 7)

    def rebuild_error(codes: Tensor, target: Tensor) -> Tensor:
        return supervised_loss(codes @ dictionary.T, target)

    def source(images: Sequence[Image], count: int) -> Callable[[torch.Generator], Examples]:
        def draw(random: torch.Generator) -> Examples:
            clean = sample_patches(images, s.patch_size, count, random)
            noise = torch.randn(clean.shape, generator=random) * (s.sigma / GRAY_LEVELS)
            noisy, means = remove_mean(clean + noise)
            return Examples(noisy, clean - means)

        return draw

    validation = source(train, s.n_validation)(generator)
    patches = source(test, s.n_test)(generator)
    prepared = prepare(dictionary)

    def error(codes: Tensor) -> float:
        return float(rebuild_error(codes, validation.target))

    methods = {
        name: tune(name, validation.measurements, prepared, error, s.n_layers) for name in SOLVERS
    }
    network = LPGNet.from_dictionary(dictionary, validation.measurements, n_layers=s.n_layers)
    train_lpg_net(
        network,
        source(train, s.patch_recipe.batch),
        rebuild_error,
        validation,
        s.patch_recipe,
        objective_weight=methods["FISTA"].parameters[0],
        seed=s.seed,
        progress=progress,
    )

    encoders: dict[str, Encoder] = {"LPG-Net": network}
    encoders |= {name: method.encoder(prepared) for name, method in methods.items()}
    rows = {"noisy": {"patch PSNR dB": _patch_psnr(patches.measurements, patches.target)}}
    with torch.no_grad():
        for name, encode in encoders.items():
            rebuilt = encode(patches.measurements) @ dictionary.T
            rows[name] = {"patch PSNR dB": _patch_psnr(rebuilt, patches.target)}

    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    pictures: dict[str, Image] = {}
    for clean in (_centre(image, s.image_side) for image in test[: s.n_images]):
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64).numpy()
        noisy = clean + noise * (s.sigma / GRAY_LEVELS)
        estimates = {"noisy": noisy}
        for name, encode in encoders.items():
            estimates[name] = denoise_image(noisy, encode, dictionary, s.patch_size, s.stride)
        for name, estimate in estimates.items():
            found[name].append((psnr(estimate, clean), ssim(estimate, clean)))
        pictures = pictures or {"clean": clean, **estimates}
    for name, pairs in found.items():
        rows[name]["image PSNR dB"], rows[name]["image SSIM"] = np.mean(pairs, axis=0).tolist()
    shown = {
        name: dict(zip(("PSNR dB", "SSIM"), pairs[0], strict=True)) for name, pairs in found.items()
    }
    return network, {"scores": rows, "shown": shown, "images": len(found["noisy"])}, pictures


def _patch_psnr(patches: Tensor, reference: Tensor) -> float:
    return psnr(patches.double().numpy(), reference.double().numpy())


def _centre(image: Image, side: int) -> Image:
    """The middle of an image, at most ``side`` pixels high and wide."""
    top, left = (max(0, (n - side) // 2) for n in image.shape)
    return image[top : top + side, left : left + side]
