"""The instruction sets: every one gives the right numbers, and none leaks into shared code."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastunroll

TESTS = Path(__file__).parent
ROOT = TESTS.parent
INFO = fastunroll.build_info()

COMPARISONS = """
import itertools, torch, fastunroll
from helpers import assert_close, cast, make_arguments
from fastunroll.ops import cpu, reference
from test_unrolled import CASES, check

torch.set_num_threads(1)
for case, level in itertools.product(CASES.values(), (1e-3, 0.4)):
    a = make_arguments(**case, batch=19, m=37, n=133, layers=3, level=level)
    check(a, 1e-9)
    if a.prox != "hard":
        single = cast(a, torch.float32)
        assert_close(cpu.unrolled(*single)[0], reference.unrolled(a)[0], 1e-4, "float32")
for dtype, n in itertools.product((torch.float32, torch.float64), (1, 7, 64, 133)):
    u, t = torch.randn(5, n, dtype=dtype), torch.rand(n, dtype=dtype)
    for nonnegative in (False, True):
        ours = fastunroll.soft_threshold(u, t, nonnegative=nonnegative)
        assert torch.equal(ours, reference.soft_threshold(u, t, nonnegative))
print(fastunroll.build_info()["isa"])
"""


def run_python(code: str, isa: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTUNROLL_ISA": isa}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True)


@pytest.mark.parametrize("isa", INFO["supported_isas"])
def test_every_supported_instruction_set_agrees_with_the_reference(isa: str) -> None:
    done = run_python(COMPARISONS, isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]


@pytest.mark.skipif("FASTUNROLL_ISA" in os.environ, reason="FASTUNROLL_ISA is set")
def test_the_best_instruction_set_is_the_default() -> None:
    assert INFO["isa"] == INFO["supported_isas"][-1]


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run_python("from fastunroll import prepare", "mmx")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: FASTUNROLL_ISA is 'mmx'")
    assert ", ".join(INFO["supported_isas"]) in last


X86 = platform.machine() in ("x86_64", "AMD64")
ARM64 = platform.machine() in ("aarch64", "arm64")
AVX2 = ["-mavx2", "-mfma", "-mbmi2"]
FLAGS = {
    "generic": [],
    "avx2": AVX2,
    "avx512": [*AVX2, *(f"-mavx512{part}" for part in ("f", "cd", "bw", "dq", "vl"))],
    "neon": [],
}


def tool(name: str, isa: str) -> str:
    """The compiler or binary tool for an instruction set; one for ARM may be a cross tool."""
    return name if isa != "neon" or ARM64 else f"aarch64-linux-gnu-{name}"


@pytest.fixture(params=FLAGS, scope="module")
def kernel_object(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The object file of one instruction set: from FASTUNROLL_BUILD_DIR, or compiled here."""
    isa = request.param
    if isa.startswith("avx") and not X86:
        pytest.skip("x86 only")
    if shutil.which(tool("nm", isa)) is None or shutil.which(tool("objdump", isa)) is None:
        pytest.skip(f"needs {tool('nm', isa)} and {tool('objdump', isa)}")
    build = os.environ.get("FASTUNROLL_BUILD_DIR")
    if build is not None and tool("nm", isa) == "nm":
        (found,) = Path(build).rglob(f"kernels_{isa}.cpp.o")
        return isa, found
    source = ROOT / "csrc" / "cpu" / f"kernels_{isa}.cpp"
    compiler = tool("g++", isa)
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    target = tmp_path_factory.mktemp("objects") / f"{isa}.o"
    options = ["-std=c++17", "-O3", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden"]
    options += ["-DFASTUNROLL_X86"] if X86 and isa != "neon" else ["-DFASTUNROLL_ARM64"]
    options += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"]
    command = [compiler, *options, *FLAGS[isa], "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return isa, target


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_instruction_set_keeps_to_its_own_object(kernel_object: tuple[str, Path]) -> None:
    isa, path = kernel_object
    symbols = [line.split()[-2:] for line in output_of(tool("nm", isa), path).splitlines()]
    exported = [name for kind, name in symbols if kind in "TDBRG"]
    assert len(exported) == 1
    assert f"{isa}_kernels" in exported[0]
    # Weak and unique symbols: the linker would keep one copy for all instruction sets.
    assert [name for kind, name in symbols if kind in "WwVvu"] == []
    # Static initialisers: they would run before the processor has been asked.
    assert ".init_array" not in output_of(tool("objdump", isa), "-h", path)


def test_an_instruction_set_uses_its_own_registers(kernel_object: tuple[str, Path]) -> None:
    isa, path = kernel_object
    code = output_of(tool("objdump", isa), "-d", "--no-show-raw-insn", path)
    if isa == "neon":
        assert "fmla\tv" in code
    elif X86:
        used = {register for register in ("xmm", "ymm", "zmm") if f"%{register}" in code}
        widest = {"generic": "xmm", "avx2": "ymm", "avx512": "zmm"}[isa]
        assert max(used) == widest
