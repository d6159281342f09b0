#!/usr/bin/env python3
"""Registers, shared memory and spills of every CUDA kernel, as a Markdown table.

    python scripts/ptxas_report.py 90

Compiles all kernels for one compute capability with nvcc; needs no GPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).parent.parent / "csrc"
FLAGS = ("-std=c++17", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "-Xptxas", "-v")
PRECISIONS = ("plain", "split", "tf32", "mixed")
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Kernel(NamedTuple):
    """One kernel's needs; bytes of a thread but for the registers."""

    name: str
    registers: int
    stack: int
    spilled: int


def readable(symbols: list[str]) -> list[str]:
    """Names with their template arguments, such as ``forward_kernel<float, split, 64>``."""
    names: list[str] = []
    if not symbols:
        return names
    done = subprocess.run(["c++filt", *symbols], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        name = re.sub(r"fastunroll::cuda::|\(anonymous namespace\)::|^void |__nv_", "", line)
        name = re.sub(r"\(Precision\)(\d)", lambda m: PRECISIONS[int(m[1])], name)
        name = re.sub(r"\((?:int|bool|Kind)\)", "", name)
        names.append(name[: name.index(">") + 1] if ">" in name else name.partition("(")[0])
    return names


def compile_file(source: Path, capability: str, folder: str) -> list[Kernel]:
    """Compile one file and read what ptxas says about its kernels."""
    target = f"-gencode=arch=compute_{capability},code=sm_{capability}"
    paths = (f"-I{CSRC}", f"-I{CSRC / 'include'}", "-o", f"{folder}/{source.stem}.o")
    done = subprocess.run(
        ["nvcc", *FLAGS, target, *paths, "-c", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found = list(KERNEL.finditer(done.stdout + done.stderr))
    names = readable([m["name"] for m in found])
    return [
        Kernel(name, int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]))
        for name, m in zip(names, found, strict=True)
    ]


def main() -> None:
    capability = sys.argv[1] if len(sys.argv) > 1 else "90"
    sources = sorted(CSRC.glob("cuda/*.cu"), key=lambda path: -path.stat().st_size)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda source: compile_file(source, capability, folder), sources)
        kernels = sorted({kernel for result in results for kernel in result})
    print("| kernel | registers | stack, bytes | spilled, bytes stored and loaded |")
    print("|---|---|---|---|")
    for k in kernels:
        print(f"| `{k.name}` | {k.registers} | {k.stack} | {k.spilled} |")
    print(f"\nsm_{capability}, compiled in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    main()
