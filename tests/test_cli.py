"""The commands, run in this process on tiny networks and files."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from typer.testing import CliRunner

import fastunroll
from fastunroll.cli.app import app
from fastunroll.cli.tasks import SparseCodes
from fastunroll.io import load_model, save_model
from fastunroll.nn import LPGNet

M, N = 16, 40
COMMANDS = [
    "bench",
    "demo",
    "denoise",
    "encode",
    "evaluate",
    "info",
    "learn-dictionary",
    "learn-filters",
    "reproduce",
    "train",
]


@pytest.fixture
def model_file(tmp_path):
    dictionary = normalize(torch.randn(M, N, generator=torch.Generator().manual_seed(0)), dim=0)
    save_model(LPGNet(dictionary, n_layers=3), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def measurements():
    return np.random.default_rng(0).normal(size=(7, M)).astype(np.float32)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(code, *arguments):
    """Run a command that must fail with this code, and return its one line of complaint."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if code == 1:
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("error: ")
    return result.stderr


def succeeds(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def codes_of(model_file, measurements):
    return load_model(model_file)(torch.from_numpy(measurements)).detach().numpy()


def write(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, other=np.zeros(1), measurements=array)
    else:
        np.savetxt(path, array, delimiter=",")
    return path


def read(path):
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    loaded = np.load(path)
    return loaded if path.suffix == ".npy" else loaded["codes"]


class TestHelp:
    def test_lists_every_command(self):
        text = succeeds("--help")
        assert [name for name in COMMANDS if name not in text] == []

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_shows_an_example(self, command):
        assert f"fastunroll {command}" in succeeds(command, "--help")

    def test_version(self):
        assert succeeds("--version").split() == ["fastunroll", fastunroll.__version__]

    def test_unknown_command_is_a_usage_error(self):
        assert "No such command" in fails(2, "enocde")

    def test_needs_no_plotting_or_image_package(self):
        code = (
            "import sys; from fastunroll.cli.app import app; "
            "sys.exit(str({'matplotlib', 'skimage', 'sklearn', 'scipy'} & set(sys.modules)))"
        )
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert process.stderr.strip() == "set()"

    def test_missing_extra_is_named(self):
        code = "import sys; sys.modules['typer'] = None; from fastunroll.cli import main; main()"
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert process.returncode == 1
        assert process.stderr.splitlines() == [
            "error: typer is not installed; try: pip install 'fastunroll[cli]'"
        ]


class TestEncode:
    @pytest.mark.parametrize("source", ["in.npy", "in.npz", "in.csv"])
    @pytest.mark.parametrize("target", ["out.npy", "out.npz", "out.csv"])
    def test_every_format(self, tmp_path, model_file, measurements, source, target):
        source = write(tmp_path / source, measurements)
        succeeds("encode", model_file, source, tmp_path / target, "--batch-size", 3)
        codes = read(tmp_path / target)
        assert codes.dtype == np.float32
        np.testing.assert_allclose(codes, codes_of(model_file, measurements), rtol=1e-5, atol=1e-6)

    def test_no_rows(self, tmp_path, model_file):
        source = write(tmp_path / "in.npy", np.zeros((0, M)))
        succeeds("encode", model_file, source, tmp_path / "out.npy")
        assert np.load(tmp_path / "out.npy").shape == (0, N)

    def test_single_sample(self, tmp_path, model_file, measurements):
        source = write(tmp_path / "in.npy", measurements[0])
        succeeds("encode", model_file, source, tmp_path / "out.npy")
        assert np.load(tmp_path / "out.npy").shape == (1, N)

    def test_wrong_width_is_named(self, tmp_path, model_file):
        source = write(tmp_path / "in.npy", np.zeros((2, M + 1)))
        message = fails(1, "encode", model_file, source, tmp_path / "out.npy")
        assert f"rows of {M + 1} numbers" in message
        assert f"{M} measurements" in message
        assert not (tmp_path / "out.npy").exists()

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("in.npy", b"hello, I am no array"),
            ("in.npz", b"hello"),
            ("in.csv", b"a,b\n1,2\n"),
            ("in.csv", b""),
        ],
    )
    def test_unreadable_input(self, tmp_path, model_file, name, content):
        (tmp_path / name).write_bytes(content)
        message = fails(1, "encode", model_file, tmp_path / name, tmp_path / "out.npy")
        assert name in message

    def test_truncated_input(self, tmp_path, model_file, measurements):
        source = write(tmp_path / "in.npy", measurements)
        source.write_bytes(source.read_bytes()[:-8])
        assert "in.npy cannot be read" in fails(1, "encode", model_file, source, "out.npy")

    @pytest.mark.parametrize(
        "array", [np.zeros((2, 2, 2)), np.array([["a"]]), np.zeros((2, 2), "c16")]
    )
    def test_input_of_another_kind(self, tmp_path, model_file, array):
        source = write(tmp_path / "in.npy", array)
        assert "matrix of real numbers" in fails(1, "encode", model_file, source, "out.npy")

    def test_archive_without_measurements(self, tmp_path, model_file):
        np.savez(tmp_path / "in.npz", a=np.zeros(1), b=np.zeros(1))
        message = fails(1, "encode", model_file, tmp_path / "in.npz", tmp_path / "out.npy")
        assert "['a', 'b']" in message

    def test_foreign_model(self, tmp_path, measurements):
        (tmp_path / "model.safetensors").write_text("hello")
        source = write(tmp_path / "in.npy", measurements)
        message = fails(1, "encode", tmp_path / "model.safetensors", source, tmp_path / "out.npy")
        assert "model.safetensors" in message

    def test_usage_errors(self, tmp_path, model_file, measurements):
        source = write(tmp_path / "in.npy", measurements)
        assert "does not exist" in fails(2, "encode", model_file, "no.npy", "out.npy")
        assert ".csv" in fails(2, "encode", model_file, source, "out.txt")
        assert "OUTPUT" in fails(2, "encode", model_file, source)
        fails(2, "encode", model_file, source, "out.npy", "--batch-size", 0)

    def test_interrupted(self, tmp_path, model_file, measurements, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(LPGNet, "forward", interrupt)
        source = write(tmp_path / "in.npy", measurements)
        before = set(tmp_path.iterdir())
        message = fails(130, "encode", model_file, source, tmp_path / "out.npy")
        assert message.startswith("interrupted: ")
        assert "out.npy was not written" in message
        assert set(tmp_path.iterdir()) == before

    def test_debug_keeps_the_traceback(self, tmp_path, model_file):
        source = write(tmp_path / "in.npy", np.zeros((2, M + 1)))
        result = run("--debug", "encode", model_file, source, tmp_path / "out.npy")
        assert isinstance(result.exception, ValueError)


class TestDenoise:
    @pytest.fixture
    def image(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        return tmp_path / "image.png"

    def test_writes_an_image_of_the_same_size(self, tmp_path, model_file, image):
        output = tmp_path / "new" / "out.png"
        assert succeeds("denoise", image, "-m", model_file, "-o", output).split() == [str(output)]
        with Image.open(output) as written:
            assert (written.size, written.mode) == ((24, 20), "RGB")

    def test_sigma_compares(self, tmp_path, model_file, image):
        arguments = ["denoise", image, "-m", model_file, "-o", tmp_path / "out.png"]
        text = succeeds(*arguments, "--sigma", 25)
        noisy = next(line for line in text.splitlines() if "PSNR noisy" in line)
        assert float(noisy.split()[-2]) == pytest.approx(20 * np.log10(255 / 25), abs=0.5)
        assert "SSIM denoised" in text

    def test_network_not_for_patches(self, tmp_path, image):
        save_model(LPGNet(torch.eye(15), n_layers=1), tmp_path / "m.safetensors")
        message = fails(1, "denoise", image, "-m", tmp_path / "m.safetensors", "-o", "out.png")
        assert "no square patch" in message

    def test_not_an_image(self, tmp_path, model_file):
        (tmp_path / "image.png").write_text("hello")
        message = fails(1, "denoise", tmp_path / "image.png", "-m", model_file, "-o", "out.png")
        assert "not a readable image" in message

    def test_unknown_output_format(self, model_file, image):
        assert "out.foo" in fails(2, "denoise", image, "-m", model_file, "-o", "out.foo")


TINY = ["--n-measurements", 20, "--n-atoms", 30, "--n-layers", 3, "--batch-size", 8]


class TestTrain:
    @pytest.fixture
    def images(self, tmp_path):
        for name in ("train/a.png", "test/b.png"):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True)
            pixels = np.random.default_rng(0).integers(0, 255, (30, 30), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / "images"

    def test_synthetic_learns(self, tmp_path):
        succeeds("train", "-o", tmp_path / "run", *TINY, "--steps", 40)
        with (tmp_path / "run" / "log.csv").open(newline="") as file:
            errors = [float(row["validation"]) for row in csv.DictReader(file)]
        assert errors[-1] < 0.8 * errors[0]
        network = load_model(tmp_path / "run" / "model.safetensors")
        assert (network.n_layers, network.dictionary.shape) == (3, (20, 30))

    def test_same_command_resumes_exactly(self, tmp_path, monkeypatch):
        arguments = [*TINY, "--steps", 25]
        succeeds("train", "-o", tmp_path / "whole", *arguments)
        calls = []

        def interrupt(task, codes, target):
            calls.append(1)
            if len(calls) == 95:  # in the stage of all layers
                signal.raise_signal(signal.SIGINT)
            return error(task, codes, target)

        error = SparseCodes.error
        with monkeypatch.context() as patch:
            patch.setattr(SparseCodes, "error", interrupt)
            message = fails(130, "train", "-o", tmp_path / "cut", *arguments)
        assert "the same command goes on" in message
        assert not (tmp_path / "cut" / "model.safetensors").exists()
        succeeds("train", "-o", tmp_path / "cut", *arguments)
        whole, cut = (load_model(tmp_path / run / "model.safetensors") for run in ("whole", "cut"))
        for name, value in whole.state_dict().items():
            assert torch.equal(value, cut.state_dict()[name])

    def test_other_settings_are_refused(self, tmp_path):
        succeeds("train", "-o", tmp_path / "run", *TINY, "--steps", 2)
        before = (tmp_path / "run" / "model.safetensors").read_bytes()
        message = fails(1, "train", "-o", tmp_path / "run", *TINY, "--steps", 2, "--density", 0.2)
        assert "density 0.1" in message
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == before

    def test_patches_from_a_folder(self, tmp_path, images):
        arguments = ["--task", "patches", "--data", images, "--sigma", 50]
        succeeds("train", "-o", tmp_path / "run", *arguments, *TINY, "--steps", 3)
        model = tmp_path / "run" / "model.safetensors"
        text = succeeds("evaluate", model, *arguments, "--n-samples", 500)
        noisy = next(line for line in text.splitlines() if "PSNR noisy" in line)
        # Taking off the mean of 64 pixels leaves 63/64 of the noise.
        expected = 20 * np.log10(255 / 50) - 10 * np.log10(63 / 64)
        assert float(noisy.split()[-2]) == pytest.approx(expected, abs=0.3)

    def test_folder_without_images(self, tmp_path):
        arguments = ["--task", "patches", "--data", tmp_path]
        assert "no images" in fails(1, "train", "-o", tmp_path / "run", *arguments)
        assert not (tmp_path / "run").exists()

    def test_usage_errors(self, tmp_path):
        run = tmp_path / "run"
        fails(2, "train")
        fails(2, "train", "-o", run, "--steps", 0)
        fails(2, "train", "-o", run, "--density", 2)
        fails(2, "train", "-o", run, "--task", "poems")
        fails(2, "train", "-o", run, "--task", "patches", "--data", tmp_path / "none")
        fails(2, "train", "-o", run, "--learning-rate", 0)
        assert not run.exists()


class TestInfo:
    def test_shows_what_is_in_use(self):
        text = succeeds("info")
        assert torch.__version__ in text
        assert [key for key in fastunroll.build_info() if key not in text] == []
