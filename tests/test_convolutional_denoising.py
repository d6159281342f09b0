"""Denoising with convolutional dictionaries: averages over shifts, crops and training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convolutional_cases import STEP, random, unit
from helpers import assert_close, assert_same_bits
from torch import Tensor

from fastunroll.dictionary import (
    ConvolutionalPUDLE,
    CSCNet,
    NoisyCrops,
    average_over_shifts,
    denoise_by_shifts,
)
from fastunroll.dictionary.train import train_dictionary
from fastunroll.training import Stage, Trainer


@pytest.mark.parametrize("size", [(9, 12), (5, 5)])
def test_averaging_over_shifts_covers_every_pixel_alike(size: tuple[int, int]) -> None:
    """The estimate of a patch is the patch times a number: then the average is known."""
    k, s = (5, 4), 3
    x = random(2, 1, *size)

    def estimate(padded: Tensor) -> Tensor:
        rest = [(n - c) % s for n, c in zip(padded.shape[2:], k, strict=True)]
        assert rest == [0, 0]
        total = torch.zeros_like(padded)
        rows, columns = (range(0, n - c + 1, s) for n, c in zip(padded.shape[2:], k, strict=True))
        for i, j in product(rows, columns):
            total[..., i : i + k[0], j : j + k[1]] += padded[..., i : i + k[0], j : j + k[1]]
        return total

    covered = k[0] * k[1] / s**2  # mean number of filters over a pixel, the same everywhere
    assert_close(average_over_shifts(x, estimate, k, s), covered * x, 1e-12, "average")


def test_averaging_over_some_shifts() -> None:
    model = ConvolutionalPUDLE(unit(6, 1, 4, 4), 3, stride=2, lam=0.1, step=STEP)
    x = random(1, 1, 10, 7, seed=4)

    def average(*shifts: tuple[int, int]) -> Tensor:
        return average_over_shifts(x, lambda x: model.decode(model(x)), (4, 4), 2, shifts)

    two = average((0, 1), (1, 0))
    mean = (average((0, 1)) + average((1, 0))) / 2
    assert_close(two.detach(), mean.detach(), 1e-12, "mean of two shifts")
    assert not torch.equal(two, average((0, 0), (1, 1)))
    (gradient,) = torch.autograd.grad(two.sum(), model.dictionary)
    assert gradient.any()


def test_denoising_by_shifts_is_a_loop_over_shifts() -> None:
    model = ConvolutionalPUDLE(unit(6, 1, 4, 4), 3, stride=2, lam=0.1, step=STEP)
    image = random(10, 7, seed=4).numpy()
    total = np.zeros_like(image)
    for i, j in product(range(2), range(2)):
        padded = np.pad(image, ((3 - i, 4), (3 - j, 4)), mode="reflect")
        fits = [n - (n - 4) % 2 for n in padded.shape]
        # Places beyond the image do not matter to a pixel of it only if no code sees them.
        last = [(n - 1 + 3 - a) // 2 * 2 + 4 for n, a in zip(image.shape, (i, j), strict=True)]
        assert all(a <= b for a, b in zip(last, fits, strict=True))
        x = torch.from_numpy(padded[: last[0], : last[1]])[None, None]
        estimate = model.decode(model(x))[0, 0].detach().numpy()
        total += estimate[3 - i : 13 - i, 3 - j : 10 - j]
    assert np.allclose(denoise_by_shifts(model, image), total / 4, rtol=0, atol=1e-12)
    colour = np.stack([image, 2 * image, image**2], axis=2)
    found = denoise_by_shifts(model, colour)
    for channel in range(3):
        alone = denoise_by_shifts(model, np.ascontiguousarray(colour[..., channel]))
        assert np.allclose(found[..., channel], alone, rtol=0, atol=1e-12)


def test_a_constant_image_stays_finite() -> None:
    model = ConvolutionalPUDLE(unit(6, 1, 4, 4), 5, stride=2, lam=0.1)
    assert np.isfinite(denoise_by_shifts(model, np.full((9, 8), 0.5))).all()
    assert not denoise_by_shifts(model, np.zeros((9, 8))).any()


GRAY = ConvolutionalPUDLE(unit(3, 1, 4, 4), 2, stride=2, step=STEP)
LINE = ConvolutionalPUDLE(unit(3, 1, 4), 2, stride=2, step=STEP)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: denoise_by_shifts(GRAY, np.zeros((3, 9))),
            ValueError,
            "image must be at least as large as a",
        ),
        (lambda: denoise_by_shifts(GRAY, np.full((9, 9), np.nan)), ValueError, "NaN or Inf"),
        (lambda: denoise_by_shifts(GRAY, np.zeros((9, 9), int)), TypeError, "floating-point"),
        (lambda: denoise_by_shifts(GRAY, np.zeros((9, 9, 2))), ValueError, r"\(height, width"),
        (lambda: denoise_by_shifts(LINE, np.zeros((9, 9))), ValueError, "filters have two axes"),
        (lambda: NoisyCrops([np.zeros((9, 9))], 10, 1, sigma=0.1), ValueError, "at least one"),
        (lambda: NoisyCrops([np.full((9, 9), np.inf)], 4, 1, sigma=0.1), ValueError, "image 0"),
        (lambda: NoisyCrops([np.zeros((9, 9), int)], 4, 1, sigma=0), TypeError, "floating"),
        (lambda: NoisyCrops([np.zeros((9, 9))], 4, 1, sigma=-1), ValueError, "sigma"),
    ],
)
def test_bad_input_is_named(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_crops_are_windows_of_the_images_with_noise() -> None:
    images = [np.arange(99.0).reshape(9, 11), 100 + np.arange(48.0).reshape(6, 8)]
    source = NoisyCrops(images, 4, 64, sigma=0.5, dtype=torch.float64)
    noisy, clean = source(torch.Generator().manual_seed(0))
    assert noisy.shape == clean.shape == (64, 1, 4, 4)
    windows = {
        tuple(image[i : i + 4, j : j + 4].ravel())
        for image in images
        for i in range(image.shape[0] - 3)
        for j in range(image.shape[1] - 3)
    }
    found = {tuple(crop.flatten().tolist()) for crop in clean}
    assert found <= windows
    assert len(found) > 32
    assert {crop[0] >= 100 for crop in found} == {True, False}
    assert float((noisy - clean).std()) == pytest.approx(0.5, rel=0.1)
    again = source(torch.Generator().manual_seed(0))
    assert_same_bits(again[0], noisy, "the same crops")
    with pytest.warns(UserWarning, match="left out 1 images"):
        assert len(NoisyCrops(images, 7, 1, sigma=0.1).images) == 1


def textures(count: int) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Images of sinusoids."""
    rows, columns = np.mgrid[:40, :36]
    frequencies = np.random.default_rng(0).uniform(0.3, 1.5, (count, 2))
    return [0.5 + 0.4 * np.sin(u * rows + v * columns) for u, v in frequencies]


def test_training_denoises_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    source = NoisyCrops(textures(20), 21, 4, sigma=0.2)
    noisy, clean = source(torch.Generator().manual_seed(99))

    def make() -> ConvolutionalPUDLE:
        filters = unit(16, 1, 5, 5).float()
        return ConvolutionalPUDLE(filters, 6, stride=4, lam=0.3, step=0.15)

    model = make()
    before = model.loss(noisy, clean).item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_dictionary(model, source, 80, learning_rate=1e-2, directory=tmp_path, progress=False)
    assert model.loss(noisy, clean).item() < 0.5 * before
    assert float(model.filters.detach().flatten(1).norm(dim=1).max()) <= 1 + 1e-6
    other = make()
    train_dictionary(other, source, 80, learning_rate=1e-2, progress=False)
    found, again = model.dictionary.detach(), other.dictionary.detach()
    assert_same_bits(found, again, "the same training")


def test_cscnet_trains_with_the_trainer() -> None:
    source = NoisyCrops(textures(20), 21, 4, sigma=0.2)
    noisy, clean = source(torch.Generator().manual_seed(99))
    network = CSCNet(unit(12, 1, 5, 5).float(), 4, stride=4, threshold=0.05)
    before = network.loss(noisy, clean).item()
    Trainer(
        network,
        source,
        lambda model, batch: model.loss(*batch),
        [Stage(name="all", max_steps=80, learning_rate=1e-2)],
        after_step=lambda model, step: model.project(),
        progress=False,
    ).fit()
    assert network.loss(noisy, clean).item() < 0.5 * before
