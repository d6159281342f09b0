"""The commands ``learn-dictionary`` and ``learn-filters``."""

from __future__ import annotations

import csv
import errno
import itertools
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from test_cli import fails, run, succeeds

import fastunroll.io
from fastunroll.data import read_image
from fastunroll.dictionary import PUDLE, ConvolutionalPUDLE
from fastunroll.io import load_model

SHORT = ["--atoms", 20, "--layers", 4, "--steps", 12, "--batch-size", 16]
PATCHES = [*SHORT, "--patch-size", 4, "--patches", 300]
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


def smooth(height=40, width=48, seed=0):
    """A smooth gray image in [0, 1]."""
    u, v = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    shift = np.random.default_rng(seed).uniform(0, 6, 4)
    waves = np.sin(u + shift[0]) * np.cos(v + shift[1]) + np.sin(u * v / 3 + shift[2])
    return (waves - waves.min()) / np.ptp(waves)


@pytest.fixture
def folder(tmp_path):
    """Three images: 8 bits, 16 bits, and colour with an alpha channel."""
    (tmp_path / "images" / "more").mkdir(parents=True)
    gray = smooth()
    Image.fromarray(np.uint8(255 * gray)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.uint16(65535 * smooth(seed=1))).save(tmp_path / "images" / "b.png")
    colour = np.stack([gray, gray**2, 1 - gray, np.ones_like(gray)], axis=2)
    Image.fromarray(np.uint8(255 * colour)).save(tmp_path / "images" / "more" / "c.png")
    return tmp_path / "images"


@pytest.fixture
def samples(tmp_path):
    """A file of samples that are sparse over a dictionary."""
    random = np.random.default_rng(0)
    codes = random.normal(size=(200, 20)) * (random.random((200, 20)) < 0.2)
    np.save(tmp_path / "samples.npy", codes @ random.normal(size=(20, 12)))
    return tmp_path / "samples.npy"


def dictionary_of(output):
    return load_model(output / "model.safetensors").state_dict()["dictionary"]


def losses(output):
    with (output / "log.csv").open(newline="") as file:
        return [float(row["validation"]) for row in csv.DictReader(file)]


def at_step(monkeypatch, number, action):
    """Do something after one of the steps of a training."""
    project, calls = PUDLE.project, itertools.count()

    def wrapped(model):
        project(model)
        if next(calls) == number:  # the first call is that of the constructor
            action()

    monkeypatch.setattr(PUDLE, "project", wrapped)


class TestLearnDictionary:
    def test_learns_from_a_folder(self, tmp_path, folder):
        text = succeeds("learn-dictionary", folder, "-o", tmp_path / "run", *PATCHES)
        assert "12 steps" in text
        assert dictionary_of(tmp_path / "run").shape == (16, 20)
        written = sorted(path.name for path in (tmp_path / "run").iterdir())
        named = ["atoms.png", "checkpoint.safetensors", "log.csv", "model.safetensors"]
        assert written == [*named, "settings.json"]
        first, last = losses(tmp_path / "run")
        assert last < first
        with Image.open(tmp_path / "run" / "atoms.png") as picture:
            assert picture.width > 500

    @pytest.mark.parametrize("gradient", ["dec", "ae-lasso"])
    def test_learns_from_an_array(self, tmp_path, samples, gradient):
        arguments = ["-o", tmp_path / "run", *SHORT, "--gradient", gradient, "--initial", "random"]
        succeeds("learn-dictionary", samples, *arguments)
        dictionary = dictionary_of(tmp_path / "run")
        assert dictionary.shape == (12, 20)
        torch.testing.assert_close(dictionary.norm(dim=0), torch.ones(20))
        assert load_model(tmp_path / "run" / "model.safetensors").gradient == gradient

    def test_npz(self, tmp_path, samples):
        np.savez(tmp_path / "samples.npz", np.load(samples))
        succeeds("learn-dictionary", tmp_path / "samples.npz", "-o", tmp_path / "a", *SHORT)
        succeeds("learn-dictionary", samples, "-o", tmp_path / "b", *SHORT)
        assert torch.equal(dictionary_of(tmp_path / "a"), dictionary_of(tmp_path / "b"))

    def test_resume_after_an_interrupt_is_exact(self, tmp_path, samples, monkeypatch):
        whole, stopped = tmp_path / "whole", tmp_path / "stopped"
        succeeds("learn-dictionary", samples, "-o", whole, *SHORT)
        with monkeypatch.context() as patch:
            at_step(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
            result = run("learn-dictionary", samples, "-o", stopped, *SHORT)
        assert result.exit_code == 130
        assert "the same command goes on from there" in result.stderr
        assert not (stopped / "model.safetensors").exists()
        succeeds("learn-dictionary", samples, "-o", stopped, *SHORT)
        assert torch.equal(dictionary_of(stopped), dictionary_of(whole))
        assert losses(stopped) == losses(whole)

    @pytest.mark.parametrize("kind", ["rows", "patches"])
    def test_other_samples_do_not_go_on(self, tmp_path, samples, folder, kind):
        """As many as before, and of the same size: only their values differ."""
        source, more = (samples, SHORT) if kind == "rows" else (folder, PATCHES)
        arguments = ["learn-dictionary", source, "-o", tmp_path / "run", *more]
        arguments += ["--initial", "random"]  # other first atoms would tell other samples, too
        succeeds(*arguments)
        if kind == "rows":
            np.save(samples, 2 * np.load(samples))
        else:
            Image.fromarray(np.uint8(255 * smooth(seed=7))).save(folder / "a.png")
        message = fails(1, *arguments)
        assert "belongs to another training: its data is samples of checksum" in message

    def test_a_copy_of_the_samples_goes_on(self, tmp_path, samples, monkeypatch):
        arguments = ["learn-dictionary", samples, "-o", tmp_path / "run", *SHORT]
        with monkeypatch.context() as patch:
            at_step(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
            assert run(*arguments).exit_code == 130
        rows = np.load(samples)
        samples.unlink()
        np.save(samples, rows)
        succeeds(*arguments)

    def test_another_command_does_not_go_on(self, tmp_path, samples):
        succeeds("learn-dictionary", samples, "-o", tmp_path / "run", *SHORT)
        before = dictionary_of(tmp_path / "run")
        arguments = ["learn-dictionary", samples, "-o", tmp_path / "run", *SHORT]
        assert "lam 0.1" in fails(1, *arguments, "--lam", 0.2)
        assert torch.equal(dictionary_of(tmp_path / "run"), before)

    @pytest.mark.filterwarnings("default")
    def test_unreadable_and_small_images_are_counted(self, tmp_path, folder):
        (folder / "broken.png").write_text("hello")
        for name in ("tiny.png", "wide.png"):
            Image.new("L", (30, 3)).save(folder / name)
        result = run("learn-dictionary", folder, "-o", tmp_path / "run", *PATCHES)
        assert result.exit_code == 0, result.output
        assert "left out 1 of 6 images" in result.stderr
        assert "broken.png" in result.stderr
        assert "left out 2 images smaller than 4 x 4" in result.stderr

    def test_depth_and_alpha_make_no_difference(self, tmp_path):
        """The same picture with 8 bits, with 16 bits and with an alpha channel."""
        pixels = np.uint8(255 * smooth())
        opaque = np.full_like(pixels, 255)
        images = {
            "8": Image.fromarray(pixels),
            "16": Image.fromarray(np.uint16(pixels) * 257),
            "alpha": Image.merge("LA", [Image.fromarray(pixels), Image.fromarray(opaque)]),
        }
        learned = []
        for name, image in images.items():
            (tmp_path / name).mkdir()
            image.save(tmp_path / name / "image.png")
            succeeds("learn-dictionary", tmp_path / name, "-o", tmp_path / f"run{name}", *PATCHES)
            learned.append(dictionary_of(tmp_path / f"run{name}"))
        torch.testing.assert_close(learned[1], learned[0])
        torch.testing.assert_close(learned[2], learned[0])


class TestLearnFilters:
    SHORT = ("--filters", 6, "--size", 5, "--stride", 2, "--crop", 17, "--layers", 3)

    def test_learns_to_remove_noise(self, tmp_path, folder):
        output = tmp_path / "run"
        arguments = [folder, "-o", output, *self.SHORT, "--steps", 100]
        assert "100 steps" in succeeds("learn-filters", *arguments)
        model = load_model(output / "model.safetensors")
        assert isinstance(model, ConvolutionalPUDLE)
        assert model.filters.shape == (6, 1, 5, 5)
        found = losses(output)
        assert len(found) == 3
        assert found[-1] < 0.8 * found[0]
        with Image.open(output / "atoms.png") as picture:
            assert picture.width > 500
        denoised = tmp_path / "out.png"
        succeeds("denoise", folder / "a.png", "-m", output / "model.safetensors", "-o", denoised)
        assert read_image(denoised).shape == (40, 48)

    def test_resume_after_an_interrupt_is_exact(self, tmp_path, folder, monkeypatch):
        whole, stopped = tmp_path / "whole", tmp_path / "stopped"
        short = [*self.SHORT, "--steps", 6]
        succeeds("learn-filters", folder, "-o", whole, *short)
        with monkeypatch.context() as patch:
            at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
            assert run("learn-filters", folder, "-o", stopped, *short).exit_code == 130
        succeeds("learn-filters", folder, "-o", stopped, *short)
        assert torch.equal(dictionary_of(stopped), dictionary_of(whole))

    def test_other_images_do_not_go_on(self, tmp_path, folder):
        """As many as before, and of the same size: only their pixels differ."""
        arguments = ["learn-filters", folder, "-o", tmp_path / "run", *self.SHORT, "--steps", 6]
        succeeds(*arguments)
        before = dictionary_of(tmp_path / "run")
        succeeds(*arguments)
        Image.fromarray(np.uint8(255 * smooth(seed=7))).save(folder / "a.png")
        message = fails(1, *arguments)
        assert "belongs to another training: its data is images of checksum" in message
        assert torch.equal(dictionary_of(tmp_path / "run"), before)

    def test_bad_crops(self, tmp_path, folder):
        short = [*self.SHORT[:-4], "--layers", 3]
        message = fails(1, "learn-filters", folder, "-o", tmp_path / "r", *short, "--crop", 18)
        assert "crop must have 5 + 2 i pixels along an axis" in message
        message = fails(1, "learn-filters", folder, "-o", tmp_path / "r", *short, "--crop", 99)
        assert "at least one of 99 x 99 pixels" in message
        assert not (tmp_path / "r").exists()


class TestBadSource:
    def test_constant_images(self, tmp_path):
        (tmp_path / "images").mkdir()
        Image.new("L", (20, 20), 77).save(tmp_path / "images" / "flat.png")
        message = fails(1, "learn-dictionary", tmp_path / "images", "-o", tmp_path / "r", *PATCHES)
        assert "all patches are flat" in message

    def test_constant_patches_are_no_atoms(self, tmp_path):
        (tmp_path / "images").mkdir()
        pixels = np.full((60, 60), 77, dtype=np.uint8)
        pixels[:30] = 255 * smooth(30, 60)
        Image.fromarray(pixels).save(tmp_path / "images" / "half.png")
        succeeds("learn-dictionary", tmp_path / "images", "-o", tmp_path / "run", *PATCHES)
        dictionary = dictionary_of(tmp_path / "run")
        torch.testing.assert_close(dictionary.norm(dim=0), torch.ones(20))

    def test_images_smaller_than_a_patch(self, tmp_path):
        (tmp_path / "images").mkdir()
        Image.fromarray(np.uint8(255 * smooth(3, 9))).save(tmp_path / "images" / "a.png")
        message = fails(1, "learn-dictionary", tmp_path / "images", "-o", tmp_path / "r", *PATCHES)
        assert "an image of at least 4 x 4 pixels" in message

    def test_no_images(self, tmp_path):
        (tmp_path / "images").mkdir()
        message = fails(1, "learn-dictionary", tmp_path / "images", "-o", tmp_path / "r", *PATCHES)
        assert "there are no images in" in message

    def test_zero_samples_are_passed_over(self, tmp_path, samples):
        rows = np.load(samples)
        rows[:150] = 0
        np.save(samples, rows)
        succeeds("learn-dictionary", samples, "-o", tmp_path / "run", *SHORT)
        assert dictionary_of(tmp_path / "run").isfinite().all()

    def test_fewer_samples_than_atoms(self, tmp_path, samples):
        np.save(samples, np.load(samples)[:19])
        message = fails(1, "learn-dictionary", samples, "-o", tmp_path / "run", *SHORT)
        assert "at least n_atoms = 20" in message
        assert "got 19" in message
        assert not (tmp_path / "run").exists()

    def test_nan(self, tmp_path, samples):
        rows = np.load(samples)
        rows[123, 4] = np.nan
        np.save(samples, rows)
        message = fails(1, "learn-dictionary", samples, "-o", tmp_path / "run", *SHORT)
        assert "NaN or Inf (first seen in row 123)" in message

    def test_another_kind_of_file(self, tmp_path):
        (tmp_path / "samples.txt").write_text("1 2 3")
        message = fails(2, "learn-dictionary", tmp_path / "samples.txt", "-o", tmp_path / "run")
        assert "must end in .npy, .npz, .csv" in " ".join(message.replace("│", " ").split())


class TestFullDisk:
    """What was written before a disk is full stays, and the same command goes on from there."""

    @pytest.mark.parametrize("error", [FULL_DISK, SafetensorError("I/O error: (os error 28)")])
    def test_checkpoint(self, tmp_path, samples, monkeypatch, error):
        output = tmp_path / "run"
        arguments = ["learn-dictionary", samples, "-o", output, *SHORT]
        with monkeypatch.context() as patch:
            at_step(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
            run(*arguments)
        kept = (output / "checkpoint.safetensors").read_bytes()
        with monkeypatch.context() as patch:

            def save_file(tensors, path, metadata):
                path.write_bytes(b"half of")
                raise error

            patch.setattr(fastunroll.io, "save_file", save_file)
            message = fails(1, *arguments)
        assert f"{output} keeps all that was written before" in message
        assert (output / "checkpoint.safetensors").read_bytes() == kept
        assert not list(output.glob(".*"))
        succeeds(*arguments)
        succeeds("learn-dictionary", samples, "-o", tmp_path / "whole", *SHORT)
        assert torch.equal(dictionary_of(output), dictionary_of(tmp_path / "whole"))

    def test_picture(self, tmp_path, samples, monkeypatch):
        arguments = ["learn-dictionary", samples, "-o", tmp_path / "run", *SHORT]
        succeeds(*arguments)
        kept = (tmp_path / "run" / "atoms.png").read_bytes()

        def save(image, path):
            path.write_bytes(kept[:20])
            raise FULL_DISK

        monkeypatch.setattr(Image.Image, "save", save)
        assert "No space left on device" in fails(1, *arguments)
        assert (tmp_path / "run" / "atoms.png").read_bytes() == kept
