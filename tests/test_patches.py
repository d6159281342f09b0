"""Patches, denoising by patches, and dictionaries for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dct

from fastunroll.data import (
    denoise_image,
    learn_patch_dictionary,
    overcomplete_dct,
    remove_mean,
    sample_patches,
)
from fastunroll.metrics import psnr


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose every pixel has its own value."""
    return np.arange(height * width, dtype=np.float64).reshape(height, width)


class TestPatches:
    def test_patches_are_cut_from_the_images(self):
        images = [ramp(6, 9), 1000 + ramp(5, 5)]
        patches = sample_patches(images, 4, 500, seeded(), dtype=torch.float64)
        assert patches.shape == (500, 16)
        found = set()
        for patch in patches.numpy():
            which = int(patch[0] >= 1000)
            row, column = divmod(int(patch[0]) - 1000 * which, images[which].shape[1])
            window = images[which][row : row + 4, column : column + 4]
            np.testing.assert_array_equal(patch, window.ravel())
            found.add((which, row, column))
        assert len(found) == 3 * 6 + 2 * 2  # Every place, to the last row and column.

    def test_equal_seeds(self):
        images = [ramp(20, 30), ramp(40, 10)]
        first, again, other = (sample_patches(images, 5, 30, seeded(s)) for s in (1, 1, 2))
        assert first.dtype == torch.float32
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_small_images_are_left_out(self):
        images = [ramp(3, 50), 5000 + ramp(8, 8)]
        with pytest.warns(UserWarning, match="left out 1 images smaller than 8 x 8"):
            patches = sample_patches(images, 8, 5, seeded())
        assert (patches[:, 0] == 5000).all()

    @pytest.mark.parametrize(
        ("images", "size", "count", "error", "message"),
        [
            ([], 4, 1, ValueError, "at least one of 4 x 4"),
            ([np.ones((3, 3))], 4, 1, ValueError, "at least one of 4 x 4"),
            (
                [np.ones((9, 9, 3))],
                4,
                1,
                ValueError,
                r"images: expected an array \(height, width\)",
            ),
            ([np.ones((9, 9), dtype=np.uint8)], 4, 1, TypeError, "images: expected floating"),
            ([np.ones((9, 9))], 0, 1, ValueError, "size must be at least 1"),
            ([np.ones((9, 9))], 4, 0, ValueError, "count must be at least 1"),
        ],
    )
    def test_bad_input(self, images, size, count, error, message):
        with pytest.raises(error, match=message):
            sample_patches(images, size, count, seeded())

    def test_bad_generator_and_dtype(self):
        with pytest.raises(TypeError, match="generator must be"):
            sample_patches([np.ones((9, 9))], 4, 1, np.random.default_rng(0))
        with pytest.raises(TypeError, match="dtype must be"):
            sample_patches([np.ones((9, 9))], 4, 1, seeded(), dtype=torch.float16)

    def test_remove_mean(self):
        patches = torch.tensor([[1.0, 3.0], [0.0, -1.0]])
        centred, means = remove_mean(patches)
        assert centred.tolist() == [[-1, 1], [0.5, -0.5]]
        assert means.tolist() == [[2], [-0.5]]


class TestDenoise:
    IDENTITY = torch.eye(16, dtype=torch.float64)

    @pytest.mark.parametrize("stride", [1, 2, 3, 4])
    @pytest.mark.parametrize("batch_size", [1, 20, 10000])
    @pytest.mark.parametrize("shape", [(4, 4), (5, 13), (16, 11)])
    def test_exact_codes_give_the_image_back(self, stride, batch_size, shape):
        image = np.random.default_rng(0).random(shape)
        result = denoise_image(image, lambda p: p, self.IDENTITY, 4, stride, batch_size)
        assert result.shape == shape
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, image, atol=1e-14)

    def test_zero_codes_give_the_average_of_patch_means(self):
        image = np.random.default_rng(0).random((9, 7))
        total, cover = np.zeros_like(image), np.zeros_like(image)
        for row in range(6):
            for column in range(4):
                window = np.s_[row : row + 4, column : column + 4]
                total[window] += image[window].mean()
                cover[window] += 1
        result = denoise_image(image, torch.zeros_like, self.IDENTITY, 4)
        np.testing.assert_allclose(result, total / cover, atol=1e-14)

    def test_encode_sees_centred_patches_row_by_row(self):
        image, seen = ramp(6, 5), []

        def encode(patches: torch.Tensor) -> torch.Tensor:
            seen.append(patches)
            return patches

        denoise_image(image, encode, self.IDENTITY, 4, batch_size=4)
        assert [len(patches) for patches in seen] == [4, 2]  # Whole rows of two patches.
        second = image[:4, 1:5].ravel()
        np.testing.assert_allclose(seen[0][1].numpy(), second - second.mean())

    def test_hard_threshold_removes_noise(self):
        rows, columns = np.mgrid[:64, :64] / 64
        clean = 0.5 + 0.3 * np.sin(6 * rows) * np.cos(9 * columns)
        noisy = clean + np.random.default_rng(0).normal(0, 0.1, clean.shape)
        dictionary = overcomplete_dct(8, 64)

        def encode(patches: torch.Tensor) -> torch.Tensor:
            codes = patches @ dictionary
            return codes * (codes.abs() > 0.27)

        denoised = denoise_image(noisy, encode, dictionary, 8)
        assert psnr(denoised, clean) > psnr(noisy, clean) + 8

    def test_the_image_is_not_changed_and_no_gradient_is_kept(self):
        image = np.random.default_rng(0).random((9, 7))
        copy = image.copy()
        dictionary = self.IDENTITY.clone().requires_grad_()
        denoise_image(image, lambda p: p @ dictionary, dictionary, 4)
        np.testing.assert_array_equal(image, copy)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"image": np.ones((9, 9, 3))}, ValueError, "image: expected an array"),
            ({"image": np.ones((9, 9), dtype=np.uint8)}, TypeError, "image: expected floating"),
            ({"image": np.ones((3, 9))}, ValueError, "image must have at least 4 x 4 pixels"),
            ({"patch_size": 5}, ValueError, r"patch_size\^2 = 25 rows, got 16"),
            ({"stride": 5}, ValueError, "stride must be at most patch_size = 4"),
            ({"stride": 0}, ValueError, "stride must be at least 1"),
            ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
            ({"dictionary": torch.zeros(16, 3)}, ValueError, "column"),
            ({"encode": lambda p: p[:, :3]}, ValueError, r"encode\(patches\) must have shape"),
            ({"encode": lambda p: p.numpy()}, TypeError, r"encode\(patches\) must be a torch"),
        ],
    )
    def test_bad_input(self, arguments, error, message):
        good = {
            "image": np.ones((9, 9)),
            "encode": lambda p: p,
            "dictionary": self.IDENTITY,
            "patch_size": 4,
        }
        with pytest.raises(error, match=message):
            denoise_image(**{**good, **arguments})


class TestDictionaries:
    def test_overcomplete_dct(self):
        dictionary = overcomplete_dct(8, 256, dtype=torch.float64)
        assert dictionary.shape == (64, 256)
        torch.testing.assert_close(dictionary.norm(dim=0), torch.ones(256, dtype=torch.float64))
        torch.testing.assert_close(dictionary[:, 0], torch.full((64,), 1 / 8, dtype=torch.float64))
        assert dictionary[:, 1:].mean(dim=0).abs().max() < 1e-12
        assert torch.linalg.matrix_rank(dictionary) == 64
        coherence = (dictionary.T @ dictionary - torch.eye(256)).abs().max()
        assert coherence < 1 - 1e-3  # No atom twice.

    def test_square_dct_is_the_orthonormal_dct(self):
        basis = dct(np.eye(5), norm="ortho", axis=0)
        expected = np.kron(basis.T, basis.T)
        result = overcomplete_dct(5, 25, dtype=torch.float64)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)

    @pytest.mark.parametrize(
        ("size", "n_atoms", "message"),
        [
            (8, 200, "n_atoms must be a perfect square, got 200"),
            (8, 49, r"patch_size must be .* at most sqrt\(n_atoms\) = 7, got 8"),
            (1, 4, "patch_size must be at least 2"),
            (8, 0, "n_atoms must be at least 1"),
        ],
    )
    def test_bad_dct(self, size, n_atoms, message):
        with pytest.raises(ValueError, match=message):
            overcomplete_dct(size, n_atoms)

    def test_learned_dictionary_finds_the_atoms(self):
        generator = seeded()
        atoms = torch.randn(25, 10, generator=generator, dtype=torch.float64)
        atoms = torch.nn.functional.normalize(atoms - atoms.mean(dim=0), dim=0)
        codes = torch.zeros(1500, 10, dtype=torch.float64)
        codes[torch.arange(1500), torch.randint(10, (1500,), generator=generator)] = 1.0
        noise = 0.02 * torch.randn(1500, 25, generator=generator, dtype=torch.float64)
        learned = learn_patch_dictionary(0.5 + codes @ atoms.T + noise, 20)
        assert learned.shape == (25, 20)
        assert (learned.T @ atoms).abs().max(dim=0).values.min() > 0.98

    def test_learned_dictionary_is_reproducible_and_has_unit_columns(self):
        patches = torch.rand(600, 16, generator=seeded())
        patches[::3] = 0.25  # Without contrast.
        first, again, other = (learn_patch_dictionary(patches, 32, seed) for seed in (0, 0, 1))
        assert first.dtype == torch.float32
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        torch.testing.assert_close(first.norm(dim=0), torch.ones(32))
        assert first.mean(dim=0).abs().max() < 1e-5

    def test_bad_patches(self):
        with pytest.raises(ValueError, match="at least n_atoms = 3 that are not constant, got 2"):
            learn_patch_dictionary(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), 3)
        with pytest.raises(ValueError, match="patches contains NaN"):
            learn_patch_dictionary(torch.tensor([[0.0, float("nan")]]), 1)
        with pytest.raises(ValueError, match="patches must have 2 axes"):
            learn_patch_dictionary(torch.ones(3), 1)
