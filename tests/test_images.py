"""Image files of many kinds, folders of them, and the photographs inside scikit-image."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastunroll.data import load_images, read_image, to_gray


@pytest.fixture
def no_variable(monkeypatch) -> None:
    monkeypatch.delenv("FASTUNROLL_DATA", raising=False)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def flat(level: int, shape: tuple[int, ...] = (12, 16)) -> np.ndarray:
    return np.full(shape, level, dtype=np.uint8)


class TestReadImage:
    def test_gray_8_bit(self, tmp_path):
        pixels = np.arange(192, dtype=np.uint8).reshape(12, 16)
        image = read_image(save(tmp_path / "a.png", pixels))
        assert image.dtype == np.float64
        np.testing.assert_array_equal(image, pixels / 255)

    @pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
    def test_gray_16_bit(self, tmp_path, suffix):
        pixels = np.linspace(0, 65535, 192).astype(np.uint16).reshape(12, 16)
        image = read_image(save(tmp_path / f"a.{suffix}", pixels))
        np.testing.assert_allclose(image, pixels / 65535, atol=1e-12)

    def test_colour_and_its_gray(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = read_image(save(tmp_path / "a.png", pixels))
        np.testing.assert_array_equal(image, pixels / 255)
        red, green, blue = np.moveaxis(pixels / 255, 2, 0)
        np.testing.assert_allclose(to_gray(image), 0.299 * red + 0.587 * green + 0.114 * blue)

    def test_gray_of_gray_is_the_same(self):
        image = np.ones((3, 4))
        assert to_gray(image) is image

    def test_white_stays_white(self):
        gray = to_gray(np.ones((37, 53, 3)))
        assert gray.max() <= 1
        np.testing.assert_allclose(gray, 1, rtol=1e-15)

    def test_alpha_is_laid_over_white(self, tmp_path):
        pixels = np.zeros((4, 4, 4), dtype=np.uint8)
        pixels[:2, :, 3] = 255
        pixels[2:, :, 3] = 51
        image = read_image(save(tmp_path / "a.png", pixels))
        assert image.shape == (4, 4, 3)
        np.testing.assert_allclose(image[:2], 0)
        np.testing.assert_allclose(image[2:], 0.8)

    def test_gray_with_alpha(self, tmp_path):
        path = tmp_path / "a.png"
        Image.merge("LA", [Image.new("L", (5, 4), 255), Image.new("L", (5, 4), 0)]).save(path)
        np.testing.assert_allclose(read_image(path), np.ones((4, 5)))

    def test_palette(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putdata([0, 1])
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.png"), [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
        )

    def test_palette_with_transparency(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putdata([0, 1])
        image.save(tmp_path / "a.png", transparency=0)
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.png"), [[[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]]
        )

    def test_one_bit(self, tmp_path):
        Image.new("1", (3, 2), 1).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.ones((2, 3)))

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
        image = read_image(tmp_path / "a.tif")
        np.testing.assert_allclose(image[0, 0], [1, 0, 0], atol=0.01)

    def test_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # To be turned by 90 degrees.
        Image.new("L", (16, 8)).save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").shape == (16, 8)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no such image: .*a\.png"):
            read_image(tmp_path / "a.png")

    def test_not_an_image(self, tmp_path):
        (tmp_path / "a.png").write_text("no image")
        with pytest.raises(ValueError, match=r"a\.png is not a readable image"):
            read_image(tmp_path / "a.png")

    def test_truncated_at_any_place(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
        whole = save(tmp_path / "a.png", noise).read_bytes()
        for length in range(0, len(whole) - 60, 7):
            (tmp_path / "b.png").write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"b\.png is not a readable image"):
                read_image(tmp_path / "b.png")

    @pytest.mark.parametrize("pixels", [np.float32([[0.5]]), np.int32([[70000]])])
    def test_other_pixel_types(self, tmp_path, pixels):
        with pytest.raises(ValueError, match=r"a\.tif has .* pixels; expected 8 or 16 bits"):
            read_image(save(tmp_path / "a.tif", pixels))

    def test_gray_of_another_shape(self):
        with pytest.raises(ValueError, match=r"got \(2, 3, 4\)"):
            to_gray(np.ones((2, 3, 4)))


class TestLoadImages:
    def test_every_fifth_without_split_folders(self, tmp_path):
        for i in range(11):
            save(tmp_path / f"{i:02d}.png", flat(i))
        levels = {
            split: [round(255 * image[0, 0]) for image in load_images(tmp_path, split=split)]
            for split in ("train", "test")
        }
        assert levels == {"train": [1, 2, 3, 4, 6, 7, 8, 9], "test": [0, 5, 10]}

    def test_split_folders(self, tmp_path):
        root = tmp_path / "train_and_test"  # Folders above the data say nothing.
        save(root / "set" / "Train3" / "deep" / "a.PNG", flat(1))
        save(root / "set" / "test" / "train.png", flat(2))
        save(root / "set" / "val" / "c.png", flat(3))
        (root / "set" / "test" / "README.md").write_text("text")
        assert [i[0, 0] * 255 for i in load_images(root, split="train")] == [1]
        assert [i[0, 0] * 255 for i in load_images(str(root), split="test")] == [2]

    def test_one_split_missing(self, tmp_path):
        save(tmp_path / "train" / "a.png", flat(1))
        message = r"no images for the test split in .*: it has 1 in all; add more, or a folder test"
        with pytest.raises(FileNotFoundError, match=message):
            load_images(tmp_path, split="test")

    def test_variable_and_argument(self, tmp_path, monkeypatch):
        save(tmp_path / "a" / "a.png", flat(1))
        save(tmp_path / "b" / "b.png", flat(2))
        monkeypatch.setenv("FASTUNROLL_DATA", str(tmp_path / "a"))
        assert load_images(split="test")[0][0, 0] == 1 / 255
        assert load_images(tmp_path / "b", split="test")[0][0, 0] == 2 / 255

    @pytest.mark.usefixtures("no_variable")
    def test_shipped_photographs(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pooch", None)  # scikit-image downloads through it.
        train, test = (load_images(split=split) for split in ("train", "test"))
        assert (len(train), len(test)) == (8, 3)
        for image in train + test:
            assert image.dtype == np.float64
            assert min(image.shape) > 200
            assert 0 <= image.min() < image.max() <= 1

    def test_broken_files_are_left_out(self, tmp_path):
        save(tmp_path / "test" / "b.png", flat(1))
        (tmp_path / "test" / "a.png").write_bytes(b"\x89PNG")
        (tmp_path / "test" / "c.jpg").write_bytes(b"")
        with pytest.warns(
            UserWarning, match=r"left out 2 of 3 images; the first: .*a\.png"
        ) as seen:
            images = load_images(tmp_path, split="test")
        assert len(images) == 1
        assert len(seen) == 1
        assert seen[0].filename == __file__

    def test_no_readable_image(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=r"none of 1 images .*a\.png"):
            load_images(tmp_path, split="test")

    @pytest.mark.parametrize("name", ["missing", "file"])
    def test_no_folder(self, tmp_path, name, monkeypatch):
        (tmp_path / "file").touch()
        with pytest.raises(FileNotFoundError, match=f"no such folder: .*{name}$"):
            load_images(tmp_path / name, split="test")
        monkeypatch.setenv("FASTUNROLL_DATA", str(tmp_path / name))
        with pytest.raises(FileNotFoundError, match=f"{name}; set FASTUNROLL_DATA.*--data.*BSDS5"):
            load_images(split="test")

    def test_bad_split(self, tmp_path):
        with pytest.raises(ValueError, match="split must be one of train, test; got 'val'"):
            load_images(tmp_path, split="val")
