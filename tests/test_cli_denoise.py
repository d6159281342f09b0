"""The command ``denoise``, and the planes that colour images are denoised in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import fails, succeeds
from test_cli_dictionary import smooth
from torch.nn.functional import normalize

import fastunroll
from fastunroll.data import by_luminance_and_chroma, denoise_image, overcomplete_dct, read_image
from fastunroll.dictionary import PUDLE, ConvolutionalPUDLE, denoise_by_shifts
from fastunroll.io import save_model
from fastunroll.metrics import psnr


class TestDenoise:
    @pytest.fixture
    def network(self, tmp_path):
        model = PUDLE(overcomplete_dct(4, 36), 10, lam=0.2, accelerated=True)
        save_model(model, tmp_path / "model.safetensors")
        return model.eval()

    @pytest.fixture
    def image(self, tmp_path):
        gray = smooth()
        colour = np.stack([gray, np.sqrt(gray), 0.5 + 0.4 * gray], axis=2)
        Image.fromarray(np.uint8(255 * colour)).save(tmp_path / "image.png")
        return tmp_path / "image.png"

    def test_colour(self, tmp_path, network, image):
        model, output = tmp_path / "model.safetensors", tmp_path / "out.png"
        text = succeeds("denoise", image, "-m", model, "-o", output, "--sigma", 25)
        clean = read_image(image)
        noise = np.random.default_rng(0).normal(0, 25 / 255, clean.shape)
        dictionary = network.dictionary.detach()
        expected = by_luminance_and_chroma(
            clean + noise, lambda plane: denoise_image(plane, network, dictionary, 4)
        ).clip(0, 1)
        np.testing.assert_allclose(read_image(output), expected, atol=0.5001 / 255)
        shown = next(line for line in text.splitlines() if "PSNR denoised" in line)
        assert float(shown.split()[-2]) == pytest.approx(psnr(expected, clean), abs=0.01)
        assert psnr(expected, clean) > psnr(clean + noise, clean) + 3

    def test_gray_image_as_it_is(self, tmp_path, network):
        Image.fromarray(np.uint8(255 * smooth())).save(tmp_path / "gray.png")
        arguments = ["-m", tmp_path / "model.safetensors", "-o", tmp_path / "out.png"]
        assert "PSNR" not in succeeds("denoise", tmp_path / "gray.png", *arguments)
        assert read_image(tmp_path / "out.png").shape == (40, 48)

    def test_lam_0_changes_little_and_a_large_one_leaves_the_means(self, tmp_path, network, image):
        arguments = ["denoise", image, "-m", tmp_path / "model.safetensors"]
        succeeds(*arguments, "-o", tmp_path / "0.png", "--lam", 0)
        succeeds(*arguments, "-o", tmp_path / "9.png", "--lam", 9)
        clean = read_image(image)
        assert psnr(read_image(tmp_path / "0.png"), clean) > 40
        assert read_image(tmp_path / "9.png").var() < clean.var()

    def test_lam_is_refused_without_a_learned_dictionary(self, tmp_path, image):
        network = fastunroll.nn.LPGNet(normalize(torch.randn(16, 20), dim=0), n_layers=1)
        save_model(network, tmp_path / "lpg.safetensors")
        arguments = ["-m", tmp_path / "lpg.safetensors", "-o", tmp_path / "out.png", "--lam", 1]
        assert "--lam has no meaning" in fails(1, "denoise", image, *arguments)

    @pytest.mark.parametrize("sigma", [[], ["--sigma", 25]])
    def test_before_and_after(self, tmp_path, network, image, sigma):
        arguments = ["-m", tmp_path / "model.safetensors", "-o", tmp_path / "out.png", *sigma]
        succeeds("denoise", image, *arguments, "--before-after", tmp_path / "both.png")
        with Image.open(tmp_path / "both.png") as picture:
            assert picture.width == (900 if sigma else 600)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_convolutional(self, tmp_path, image, channels):
        filters = torch.randn(6, channels, 3, 3, generator=torch.Generator().manual_seed(0))
        network = ConvolutionalPUDLE(filters, 4, stride=2, lam=0.05)
        save_model(network, tmp_path / "model.safetensors")
        arguments = ["-m", tmp_path / "model.safetensors", "-o", tmp_path / "out.png"]
        succeeds("denoise", image, *arguments)
        with torch.inference_mode():
            expected = (
                denoise_by_shifts(network.eval(), read_image(image))
                if channels == 3
                else by_luminance_and_chroma(
                    read_image(image), lambda plane: denoise_by_shifts(network.eval(), plane)
                )
            )
        written = read_image(tmp_path / "out.png")
        np.testing.assert_allclose(written, expected.clip(0, 1), atol=0.5001 / 255)


class TestLuminanceAndChroma:
    def test_doing_nothing_changes_nothing(self):
        image = np.random.default_rng(0).random((5, 6, 3))
        np.testing.assert_allclose(by_luminance_and_chroma(image, lambda plane: plane), image)

    def test_white_noise_keeps_its_strength(self):
        noise = np.random.default_rng(0).normal(size=(200, 200, 3))
        strengths = []
        by_luminance_and_chroma(noise, lambda plane: strengths.append(plane.std()) or plane)
        np.testing.assert_allclose(strengths, np.ones(3), rtol=0.02)

    def test_gray_has_no_chroma(self):
        image = np.repeat(smooth()[..., None], 3, axis=2)
        planes = []
        by_luminance_and_chroma(image, lambda plane: planes.append(plane) or plane)
        np.testing.assert_allclose(planes[0], np.sqrt(3) * smooth())
        np.testing.assert_allclose(planes[1:], 0, atol=1e-15)
