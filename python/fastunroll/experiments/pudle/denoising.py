"""Table 1: convolutional dictionaries learned from noisy crops, by gradient and lambda."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import ConvolutionalPUDLE, NoisyCrops, denoise_by_shifts
from fastunroll.dictionary.train import train_dictionary
from fastunroll.experiments.pudle.images import (
    Image,
    crop_psnr,
    crops_of,
    image_scores,
    with_noise,
)
from fastunroll.experiments.pudle.settings import DenoisingSettings
from fastunroll.io import load_model, save_model

DEC, LEAST_SQUARES, HARD = "g_dec", "g_ae-ls", "hard threshold"
KINDS = (LEAST_SQUARES, DEC, HARD)

_CHUNK = 16
"""Crops that are encoded at a time."""


def values_of(kind: str, s: DenoisingSettings) -> tuple[float, ...]:
    """Lambdas, or thresholds, of a kind."""
    return s.thresholds if kind == HARD else s.lams


def learn_filters(
    s: DenoisingSettings,
    kind: str,
    value: float,
    seed: int,
    train: Sequence[Image],
    test: Sequence[Image],
    path: Path,
    directory: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Learn filters with lambda, or the hard threshold, ``value``; save them, and score them.

    An interrupted training goes on where it stopped.

    Returns
    -------
    dict
        PSNR of test crops in dB, ``"paper"`` and ``"standard"`` (see `crop_psnr`), that of the
        noisy crops as ``"noisy"``, ``"density"`` of the codes, ``"steps"``, ``"crops"``,
        ``"epochs"``, ``"seconds"`` and ``"threads"``.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "dictionary"))
    model = ConvolutionalPUDLE(
        torch.randn(s.n_filters, 1, s.filter_size, s.filter_size, generator=generator),
        s.n_layers,
        stride=s.stride,
        lam=value,
        step=s.step,
        gradient="dec" if kind == DEC else "ae-ls",
        prox="hard" if kind == HARD else "soft",
    )
    source = NoisyCrops(train, s.crop, s.batch_size, sigma=s.sigma)
    result = train_dictionary(
        model,
        source,
        s.n_steps,
        learning_rate=s.learning_rate,
        learning_rate_decay=s.learning_rate_decay,
        seed=stream_seed(seed, "training"),
        directory=directory,
        resume=True,
        progress=progress,
    )
    save_model(model, path)
    clean = crops_of(test[: s.n_images], s.crop, s.crops_per_image, seed)
    generator = torch.Generator().manual_seed(stream_seed(seed, "validation"))
    noisy = clean + s.sigma * torch.randn(clean.shape, generator=generator)
    with torch.no_grad():
        codes = [model(part) for part in noisy.split(_CHUNK)]
        estimate = torch.cat([model.decode(part) for part in codes])
    n_crops = result.n_steps * s.batch_size
    return {
        **crop_psnr(estimate, clean),
        "noisy": crop_psnr(noisy, clean),
        "density": float(sum((part != 0).sum() for part in codes) / sum(map(torch.numel, codes))),
        "steps": result.n_steps,
        "crops": n_crops,
        "epochs": n_crops / len(source.images),
        "seconds": result.seconds,
        "threads": torch.get_num_threads(),
    }


def score_images(
    path: Path, s: DenoisingSettings, seed: int, test: Sequence[Image]
) -> dict[str, Any]:
    """Scores of a saved model on whole test images, averaged over shifts."""
    model = load_model(path)
    assert isinstance(model, ConvolutionalPUDLE)
    clean = test[: s.n_whole_images]
    noisy = with_noise(clean, s.sigma, seed)
    return image_scores(lambda image: denoise_by_shifts(model, image), clean, noisy)
