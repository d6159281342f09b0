"""Parts of the experiments with PUDLE: what they depend on, resumption, and images that do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pudle_cases import TINY, photographs

from fastunroll.dictionary import NoisyCrops
from fastunroll.experiments.pudle import cscnet, run, settings
from fastunroll.experiments.pudle.denoising import learn_filters
from fastunroll.experiments.pudle.images import images, with_noise
from fastunroll.experiments.pudle.parts import Parts
from fastunroll.experiments.pudle.settings import PudleSettings
from fastunroll.training import run as training_run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return photographs(tmp_path_factory.mktemp("images"))


def interrupted_at(monkeypatch, number: int) -> list[int]:
    """Stop the training at one of its steps; the list grows by every step."""
    steps, step = [], training_run.Run._step

    def watched(self, *args):
        steps.append(1)
        if len(steps) == number:
            self._interruption.requested = 2
        return step(self, *args)

    monkeypatch.setattr(training_run.Run, "_step", watched)
    return steps


def test_an_interrupted_training_of_filters_goes_on(tmp_path, data, monkeypatch):
    train, test = images(data, 17, 1)

    def learn(folder: Path) -> dict:
        path = folder / "model.safetensors"
        return learn_filters(
            TINY.denoising, "g_dec", 0.12, 0, train, test, path, folder / "run", progress=False
        )

    whole = learn(tmp_path / "whole")
    steps = interrupted_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "parts")
    assert learn(tmp_path / "parts")["paper"] == whole["paper"]
    assert len(steps) == 3


def quiet(output: Path, s: PudleSettings, data: Path | None = None, say=str) -> Parts:
    return Parts(output, s, data, progress=False, say=say)


def test_a_training_with_other_settings_starts_anew(tmp_path, monkeypatch):
    """Only the number of samples differs, which no checkpoint tells."""
    more = replace(TINY, local=replace(TINY.local, n_training_samples=90))
    few, many = (
        quiet(tmp_path / name, s).training(5, "dec") for name, s in (("few", TINY), ("many", more))
    )
    steps = interrupted_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        quiet(tmp_path / "both", TINY).training(5, "dec")
    assert quiet(tmp_path / "both", more).training(5, "dec")["errors"] == many["errors"]
    assert len(steps) == 2 + 4
    assert quiet(tmp_path / "both", TINY).training(5, "dec")["errors"] == few["errors"]
    assert len(steps) == 2 + 4 + 2
    assert few["errors"] != many["errors"]


def test_parts_are_those_of_their_settings(tmp_path, data):
    said = []
    deeper = replace(TINY, cscnet=replace(TINY.cscnet, n_layers=3))
    denser = replace(TINY, speed_sparsity=3)
    for s in (TINY, TINY, deeper, deeper, denser, denser):
        parts = quiet(tmp_path, s, data, said.append)
        parts.speed()
        parts.denoised({}, 0)
    assert said == ["speed", "pictures", "pictures", "speed", "pictures"]


@pytest.mark.parametrize("replaced", ["train/1.png", "test/4.png"])
def test_parts_are_those_of_their_images(tmp_path, data, replaced):
    said, folder = [], tmp_path / "images"
    shutil.copytree(data, folder)
    for _ in range(2):
        quiet(tmp_path, TINY, folder, said.append).denoised({}, 0)
    Image.fromarray(np.eye(30, dtype=np.uint8)).save(folder / replaced)
    quiet(tmp_path, TINY, folder, said.append).denoised({}, 0)
    assert said == ["pictures", "pictures"]


def test_small_images_are_left_out(tmp_path, data):
    folder = tmp_path / "images"
    shutil.copytree(data, folder)
    for path in (folder / "train" / "0.png", folder / "test" / "3.png"):
        with Image.open(path) as image:
            image.crop((0, 0, 30, 16)).save(path)
    with pytest.warns(UserWarning, match="left out 2 images smaller than 17 x 17"):
        train, test = images(folder, 17, 2)
    assert [image.shape for image in (*train, *test)] == [(30, 30)] * 3
    assert [len(split) for split in images(folder, 16, 3)] == [3, 2]


@pytest.mark.parametrize(
    ("n_held_out", "crop", "message"),
    [
        (3, 17, "at least 4 training images and a test image of 17 x 17 .* got 3 and 2"),
        (1, 33, "at least 2 training images and a test image of 33 x 33 .* got 0 and 0"),
    ],
)
def test_images_that_do_not_do_stop_a_run_at_once(
    tmp_path, data, monkeypatch, n_held_out, crop, message
):
    stages = tuple(replace(stage, crop=crop) for stage in TINY.cscnet.stages)
    cscnet = replace(TINY.cscnet, n_held_out=n_held_out, stages=stages)
    monkeypatch.setitem(settings._BUDGETS, "quick", replace(TINY, cscnet=cscnet))
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", data=data, progress=False)
    assert not (tmp_path / "run").exists()


def test_only_held_out_images_are_kept_from_the_training(tmp_path, monkeypatch):
    seen = {}
    pixels = np.random.default_rng(0).random((5, 20, 20)).astype(np.float32)

    def noisy(clean, sigma, seed):
        seen["held out"] = clean
        return with_noise(clean, sigma, seed)

    def crops(found, *args, **options):
        seen["trained on"] = found
        return NoisyCrops(found, *args, **options)

    monkeypatch.setattr(cscnet, "with_noise", noisy)
    monkeypatch.setattr(cscnet, "NoisyCrops", crops)
    for count, chosen in ((3, (0, 1)), (5, (0, 2))):
        folder = tmp_path / str(count)
        s = replace(TINY.cscnet, n_held_out=2)
        found = cscnet.train_cscnet(
            s, 0, list(pixels[:count]), folder / "model.safetensors", folder / "run", progress=False
        )
        assert found["training images"] == count - 2
        np.testing.assert_array_equal(seen["held out"], pixels[list(chosen)])
        others = [index for index in range(count) if index not in chosen]
        np.testing.assert_array_equal(seen["trained on"], pixels[others])
