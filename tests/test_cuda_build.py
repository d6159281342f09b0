"""The build option FASTUNROLL_CUDA: what is decided where nvcc or a GPU is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

OPTION = Path(__file__).parent.parent / "cmake/cuda.cmake"
pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake and g++"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is nothing but the option, where CUDA is decided on and then reported."""
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(test LANGUAGES CXX)\ninclude({OPTION})\n"
    )
    return tmp_path


def configure(
    project: Path, *options: str, gpus: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Configure on a machine with GPUs of these compute capabilities."""
    tools = project / "tools"
    tools.mkdir(exist_ok=True)
    smi = tools / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n[ '{gpus}' ] || exit 9\nfor c in {gpus}; do echo $c; done\n")
    smi.chmod(0o755)
    return subprocess.run(
        ["cmake", "-S", str(project), "-B", str(project / "build"), *options],
        env={**os.environ, **environment, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def test_off_looks_for_nothing(project: Path) -> None:
    done = configure(project, "-DFASTUNROLL_CUDA=OFF", gpus="9.0")
    assert done.returncode == 0, done.stderr
    assert "not built, FASTUNROLL_CUDA=OFF" in done.stdout
    assert "CUDA compiler" not in done.stdout


@pytest.mark.parametrize("gpus", ["", "7.5"], ids=["no GPU", "an old GPU"])
def test_auto_builds_nothing_without_a_gpu_that_could_run_it(project: Path, gpus: str) -> None:
    done = configure(project, gpus=gpus)
    assert done.returncode == 0, done.stderr
    assert "not built, no GPU" in done.stdout
    assert "CUDA compiler" not in done.stdout


def test_auto_builds_nothing_without_nvcc(project: Path) -> None:
    done = configure(project, gpus="9.0", CUDACXX="/nonexistent/nvcc")
    assert done.returncode == 0, done.stderr
    assert "not built, there is no nvcc" in done.stdout


def test_on_fails_without_nvcc(project: Path) -> None:
    done = configure(project, "-DFASTUNROLL_CUDA=ON", CUDACXX="/nonexistent/nvcc")
    assert done.returncode != 0
    assert "FASTUNROLL_CUDA=ON, but there is no nvcc" in done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_on_fails_with_a_compiler_that_nvcc_does_not_take(project: Path) -> None:
    done = configure(project, "-DFASTUNROLL_CUDA=ON", CUDAHOSTCXX=shutil.which("false") or "")
    assert done.returncode != 0
    assert "FASTUNROLL_CUDA=ON, but there is no nvcc" in done.stderr


def test_another_word_is_refused(project: Path) -> None:
    done = configure(project, "-DFASTUNROLL_CUDA=YES")
    assert done.returncode != 0
    assert "must be AUTO, ON or OFF, got 'YES'" in done.stderr


# Up to here nothing needs pybind11; the module itself does.
STUBS = """
macro(pybind11_add_module name)
  add_library(${name} MODULE EXCLUDE_FROM_ALL main.cpp)
endmacro()
"""


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("options", "gpus", "expected"),
    [
        ((), "9.0 9.0 7.5 12.0", "for 90-real;120-real"),
        (("-DCMAKE_CUDA_ARCHITECTURES=90",), "", "for 90"),
        (("-DFASTUNROLL_CUDA=ON",), "9.0", "for 80-real;86-real;89-real;90"),
    ],
    ids=["AUTO: the GPUs here", "AUTO: asked for", "ON: all"],
)
def test_architectures(project: Path, options: tuple[str, ...], gpus: str, expected: str) -> None:
    text = (project / "CMakeLists.txt").read_text().replace("include(", f"{STUBS}include(")
    (project / "CMakeLists.txt").write_text(text)
    (project / "main.cpp").write_text("")
    (project / "csrc/cuda").mkdir(parents=True)
    (project / "csrc/cuda/kernel.cu").write_text("")
    for _ in ("at first", "again"):
        done = configure(project, *options, gpus=gpus)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "CUDA kernels: nvcc" in line]
        assert expected in line
