"""The CUDA kernels on an emulated GPU, under the sanitizers, and what happens if they are broken.

The same kernel sources that nvcc compiles are compiled for the host. A pass here says that the
kernels do what they should under the rules of the programming model; it says nothing about a GPU.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import emulated
import pytest
from emulated import CSRC, compile_all

CHECKS = sorted((Path(__file__).parent / "cuda").iterdir())
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = ("-O1", "-g1", "-Wall", "-Wextra", *SANITIZE)
# The emulated machine is not what is checked, and takes half as long without the sanitizers.
EMULATOR, EMULATOR_FLAGS = CSRC / "cuda/emulate.cpp", ("-O2", "-Wall", "-Wextra", "-Werror")

pytestmark = emulated.needs_compiler


class Mutant(NamedTuple):
    """A defect: where it goes, the kernel file to compile again, the checks that show it."""

    file: str
    good: str
    bad: str
    kernel: str
    checks: str
    message: str


MUTANTS = {
    "no barrier before a slab is read": Mutant(
        *("product.h", "wait_copies<kStages - 2>();\n    sync_block();", "wait_copies<1>();"),
        *("forward_16.cu", "factored plain small forward", "read before it is written"),
    ),
    "a copy is not waited for": Mutant(
        *("product.h", "wait_copies<kStages - 2>()", "wait_copies<kStages - 1>()"),
        *("forward_16.cu", "factored plain small forward", "was not waited for"),
    ),
    "the wrong column": Mutant(
        *("product.h", "operand.at(i * 8 + lane() / 4, depth + k)", "i * 8 + lane() / 4"),
        *("forward_double.cu", "factored double small forward", "not aligned"),
    ),
    "rows shift while the product reads them": Mutant(
        *("forward_kernel.h", "if (!deferred(net_)) return;\n    sync_block();", ""),
        *("forward_16.cu", "gram per layer plain small forward", "without a barrier in between"),
    ),
    "blocks of a cluster do not wait": Mutant(
        *("cluster.cu", "sum;\n      });\n      sync_cluster();", "sum;\n      });\n"),
        *("cluster.cu", "factored plain cluster forward", "without a barrier in between"),
    ),
    "a barrier in a branch": Mutant(
        *("reduce.h", "value;\n  sync_block();", "value;\n  if (warp() == 0) sync_block();"),
        *("shrink.cu", "shrink float32 5x7", "not all threads reach"),
    ),
    "one row too many": Mutant(
        *("outer.cu", "next_ + row < end_", "next_ + row <= end_"),
        *("outer.cu", "factored double small backward", ""),
    ),
    "lanes of a warp sum the wrong parts": Mutant(
        *("device.h", "offset > 0; offset /= 2", "offset > 1; offset /= 2"),
        *("reduce.cu", "shrink float32 9x1100", "FAILED"),
    ),
}


def link(objects: list[Path], target: Path) -> Path:
    subprocess.run(["g++", *SANITIZE, *map(str, objects), "-o", str(target)], check=True)
    return target


def run(harness: Path, checks: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(harness), checks], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest) -> Path:
    """A folder with the harness and its objects."""
    files = [*CHECKS, *emulated.KERNELS, *emulated.MACHINE]
    flags = {path: (*FLAGS, "-Werror") for path in files if path.suffix != ".h"}
    flags[EMULATOR] = EMULATOR_FLAGS

    def build(folder: Path) -> None:
        link(compile_all(flags, folder), folder / "harness")

    key = [Path(__file__), *files, *emulated.headers()]
    return emulated.built(request.config, "cuda-harness", key, build)


def test_every_kernel_agrees_with_the_reference(built: Path) -> None:
    done = run(built / "harness")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert done.returncode == 0, "\n".join([*failed, done.stderr[-2000:]])
    assert done.stdout.count("\n") > 500


@pytest.mark.parametrize("name", MUTANTS)
def test_a_defect_is_noticed(name: str, built: Path, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    shutil.copytree(CSRC, tmp_path / "csrc", ignore=shutil.ignore_patterns("cpu", "bindings"))
    broken = tmp_path / "csrc/cuda" / mutant.file
    text = broken.read_text()
    assert mutant.good in text, "the source has changed: adapt the mutant"
    broken.write_text(text.replace(mutant.good, mutant.bad))
    kernel = tmp_path / "csrc/cuda" / mutant.kernel
    objects = compile_all({kernel: FLAGS}, tmp_path, tmp_path / "csrc")
    objects += [path for path in built.glob("*.o") if path.name != f"{mutant.kernel}.o"]
    done = run(link(objects, tmp_path / "harness"), mutant.checks)
    assert done.returncode != 0, f"not noticed:\n{done.stdout}"
    assert mutant.message in done.stdout + done.stderr, done.stdout + done.stderr
    clean = run(built / "harness", mutant.checks)
    assert clean.returncode == 0
    assert clean.stdout
