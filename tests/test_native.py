"""The kernels without Python: instruction sets against the generic code, also of other machines."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import fastunroll

CHECKS = Path(__file__).parent / "native"
CROSS = "aarch64-linux-gnu"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
]


def check(build: Path, isas: list[str], *variables: str) -> None:
    """Build the checks and run them for the instruction sets."""
    command = ["make", "-s", f"-j{os.cpu_count()}", "-C", str(CHECKS), f"BUILD={build}"]
    done = subprocess.run(
        [*command, f"ISAS={' '.join(isas)}", *variables],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reports = done.stdout.splitlines()
    assert [report.partition(":")[0] for report in reports] == isas
    assert all("results, 0 wrong" in report for report in reports)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_every_instruction_set_agrees_with_the_generic_code(tmp_path: Path) -> None:
    check(tmp_path, fastunroll.build_info()["supported_isas"])


@pytest.mark.skipif(
    shutil.which(f"{CROSS}-g++") is None or shutil.which("qemu-aarch64") is None,
    reason=f"needs {CROSS}-g++ and qemu-aarch64",
)
def test_neon_agrees_with_the_generic_code(tmp_path: Path) -> None:
    emulator = f"EMULATOR=qemu-aarch64 -L /usr/{CROSS}"
    check(tmp_path, ["neon"], f"CXX={CROSS}-g++", emulator)
