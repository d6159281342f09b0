"""``scripts/gpu_check.sh``: what it does without a GPU, and how it goes on where tools fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/gpu_check.sh"


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def write_tool(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A machine with a GPU, of which every tool succeeds; python's calls are written down."""
    folder = tmp_path / "tools"
    folder.mkdir()
    write_tool(folder, "nvidia-smi", "echo NVIDIA Test, 580.1")
    write_tool(folder, "cmake", "exit 0")
    write_tool(folder, "compute-sanitizer", 'while [[ $1 == -* ]]; do shift 2; done; "$@"')
    write_tool(
        folder,
        "python3",
        f'echo "$@" >> {folder}/calls\n'
        "while (($#)); do [[ $1 == --output ]] && out=$2; shift; done\n"
        "[[ ${out-} ]] && printf '```\\ntarget reached\\n```\\n' > \"$out/gpu.md\"\n"
        "exit 0",
    )
    return folder


def test_without_a_gpu_it_says_so_and_exits_2(tmp_path: Path) -> None:
    write_tool(tmp_path, "nvidia-smi", "exit 9")
    done = run(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr
    assert done.stdout == ""


def test_with_a_torch_that_sees_no_gpu_it_exits_2(tmp_path: Path) -> None:
    write_tool(tmp_path, "nvidia-smi", "echo NVIDIA Test, 580.1")
    python = write_tool(tmp_path, "python3", "exit 1")
    done = run(PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(python))
    assert done.returncode == 2
    assert "no torch that sees the GPU" in done.stderr


def test_an_unknown_option_is_refused() -> None:
    done = run("--fast")
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("quick", [False, True])
def test_all_steps_run_and_the_table_comes_last(tools: Path, tmp_path: Path, quick: bool) -> None:
    out = tmp_path / "out"
    done = run(*["--quick"] * quick, "--out", str(out), PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tools / "calls").read_text()
    assert "pytest -q -W default -p no:cacheprovider tests/gpu\n" in calls
    assert ("--quick" in calls) == quick
    sanitized = calls.count("tests/gpu/test_gpu_kernels.py")
    assert sanitized == (1 if quick else 2)
    assert "target reached" in done.stdout.splitlines()[-2]
    assert (out / "summary.md").read_text() in done.stdout
    assert {"build.log", "tests.log", "memcheck.log", "benchmark.log"} <= {
        path.name for path in out.iterdir()
    }


def test_a_failed_build_ends_it(tools: Path, tmp_path: Path) -> None:
    write_tool(tools, "cmake", "echo no such architecture; exit 3")
    done = run("--out", str(tmp_path / "out"), PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "no such architecture" in done.stdout
    assert "FAILED" in done.stdout
    assert "benchmark" not in done.stdout


def test_a_failed_test_is_told_and_the_benchmark_runs_nevertheless(
    tools: Path, tmp_path: Path
) -> None:
    write_tool(tools, "python3", "[[ $2 == pytest ]] && exit 1\nexit 0")
    done = run("--out", str(tmp_path / "out"), PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "| tests      | FAILED (1)" in done.stdout
    assert "| benchmark  | passed" in done.stdout
