"""Metrics against independent formulas, scikit-learn and hand-made cases."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import precision_recall_fscore_support

from fastunroll.metrics import (
    SupportScores,
    mean_absolute_error,
    nmse_db,
    psnr,
    sample_nmse_db,
    ssim,
    support_scores,
)


@pytest.fixture
def codes() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(7, 40, generator=generator) * (
        torch.rand(7, 40, generator=generator) < 0.2
    )
    estimate = target + 0.1 * torch.randn(7, 40, generator=generator)
    return estimate * (torch.rand(7, 40, generator=generator) < 0.5), target


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((24, 30))


def test_nmse_is_the_ratio_of_sums(codes):
    estimate, target = (c.double().numpy() for c in codes)
    expected = 10 * np.log10(((estimate - target) ** 2).sum() / (target**2).sum())
    assert nmse_db(*codes) == pytest.approx(expected, abs=1e-12)


def test_sample_nmse_is_per_sample(codes):
    estimate, target = (c.double().numpy() for c in codes)
    expected = 10 * np.log10(((estimate - target) ** 2).sum(1) / (target**2).sum(1))
    result = sample_nmse_db(*codes)
    assert result.shape == (7,)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)
    assert sample_nmse_db(codes[0][0], codes[1][0]).item() == pytest.approx(expected[0])


def test_nmse_at_zero():
    zero, one = torch.zeros(3), torch.ones(3)
    assert nmse_db(zero, zero) == -math.inf
    assert nmse_db(one, one) == -math.inf
    assert nmse_db(one, zero) == math.inf
    assert nmse_db(zero, one) == 0
    batch = sample_nmse_db(torch.stack([zero, one, one]), torch.stack([zero, zero, one]))
    assert batch.tolist() == [-math.inf, math.inf, -math.inf]


def test_nmse_keeps_nan():
    assert math.isnan(nmse_db(torch.full((3,), math.nan), torch.ones(3)))


def test_nmse_of_float32_does_not_overflow():
    huge = torch.full((4,), 1e30)
    assert nmse_db(2 * huge, huge) == pytest.approx(0, abs=1e-5)


def test_mean_absolute_error():
    estimate = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    assert mean_absolute_error(estimate, torch.zeros(2, 2)) == 0.75


def test_support_scores_match_scikit_learn(codes):
    estimate, target = codes
    labels = [(c != 0).flatten().numpy() for c in (target, estimate)]
    expected = precision_recall_fscore_support(*labels, average="binary")[:3]
    assert support_scores(estimate, target) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("estimate", "target", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], (1, 1, 1)),
        ([0.0, 1.0], [0.0, 0.0], (0, 0, 0)),
        ([0.0, 0.0], [0.0, 1.0], (0, 0, 0)),
        ([1.0, 1.0], [0.0, -9.0], (0.5, 1, 2 / 3)),
    ],
)
def test_support_scores_by_hand(estimate, target, expected):
    scores = support_scores(torch.tensor(estimate), torch.tensor(target))
    assert isinstance(scores, SupportScores)
    assert scores == pytest.approx(expected)


def test_support_tolerance_is_strict():
    target = torch.tensor([1.0, 0.0, 0.0])
    estimate = torch.tensor([1.0, 0.25, -0.125])
    assert support_scores(estimate, target).precision == pytest.approx(1 / 3)
    assert support_scores(estimate, target, tolerance=0.125).precision == 0.5
    assert support_scores(estimate, target, tolerance=0.25).precision == 1


@pytest.mark.parametrize("metric", [nmse_db, sample_nmse_db, mean_absolute_error, support_scores])
@pytest.mark.parametrize(
    ("estimate", "target", "error", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), ValueError, r"estimate must have shape \(2, 4\)"),
        (torch.ones(3), torch.ones(3).double(), TypeError, "estimate has dtype"),
        (torch.ones(3).int(), torch.ones(3), TypeError, "estimate must be float32"),
        (torch.ones(3), [1.0], TypeError, "target must be a torch.Tensor"),
        (torch.ones(0, 3), torch.ones(0, 3), ValueError, "estimate must not be empty"),
    ],
)
def test_bad_codes(metric, estimate, target, error, message):
    with pytest.raises(error, match=message):
        metric(estimate, target)


def test_negative_tolerance():
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        support_scores(torch.ones(2), torch.ones(2), tolerance=-1)


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_psnr_by_formula(image, peak):
    assert psnr(peak * (image + 0.1), peak * image, peak) == pytest.approx(20)


def test_equal_images(image):
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1)


def test_ssim_of_constant_images():
    # Without variance, SSIM is its luminance term alone.
    dark, bright, c1 = 0.2, 0.6, 0.01**2
    expected = (2 * dark * bright + c1) / (dark**2 + bright**2 + c1)
    shape = (16, 16)
    assert ssim(np.full(shape, dark), np.full(shape, bright)) == pytest.approx(expected)


def test_ssim_by_formula(image):
    other = image + np.random.default_rng(1).normal(0, 0.2, image.shape)

    def blur(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, sigma=1.5, radius=5)

    mean_x, mean_y = blur(image), blur(other)
    variances = blur(image**2) - mean_x**2 + blur(other**2) - mean_y**2
    covariance = blur(image * other) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    ratio /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    assert ssim(other, image) == pytest.approx(ratio[5:-5, 5:-5].mean())


def test_ssim_falls_with_noise_and_scales_with_the_peak(image):
    noise = np.random.default_rng(1).normal(size=image.shape)
    little, much = (ssim(image + s * noise, image) for s in (0.05, 0.5))
    assert 1 > little > much
    assert ssim(255 * (image + 0.05 * noise), 255 * image, 255.0) == pytest.approx(little)


def test_colour_images(image):
    colour = np.stack([image, image, image], axis=2)
    noise = np.random.default_rng(1).normal(0, 0.1, image.shape)
    assert psnr(colour + noise[..., None], colour) == pytest.approx(psnr(image + noise, image))
    assert ssim(colour + noise[..., None], colour) == pytest.approx(ssim(image + noise, image))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bad_images(metric, image):
    with pytest.raises(ValueError, match=r"image has shape \(24, 30\) but reference"):
        metric(image, image[1:])
    with pytest.raises(ValueError, match="image must be"):
        metric(image[0], image[0])
    with pytest.raises(ValueError, match="peak must be greater than 0"):
        metric(image, image, 0.0)


def test_ssim_of_a_tiny_image(image):
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(image[:10], image[:10])


def test_missing_package_names_the_extra(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'fastunroll\[cli\]'"):
        psnr(image, image)
