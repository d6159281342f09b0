#!/usr/bin/env python3
"""Registers, stack and spills of every CUDA kernel, as a Markdown table, from the log of a build.

    FASTUNROLL_CUDA=ON CUDAFLAGS=-Xptxas=-v pip wheel -v . > build.log
    python scripts/ptxas_report.py build.log 90

The table is for the compute capability that is named, with a line for each of the others.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<capability>\d+)'.*?"
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


def readable(symbol: str) -> str:
    """A name with its template arguments, such as ``forward_kernel<float, 64>``."""
    done = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True)
    name = re.sub(r"fastunroll::cuda::|\(anonymous namespace\)::|^void ", "", done.stdout)
    name = re.sub(r"\((?:int|bool)\)|__nv_|__(?=half)", "", name)
    return name[: name.index(">") + 1] if ">" in name else name.partition("(")[0]


def read(log: str) -> dict[str, list[Kernel]]:
    """The kernels of every compute capability, in the order of their names."""
    found: dict[str, dict[str, Kernel]] = defaultdict(dict)
    for m in KERNEL.finditer(log):
        spilled = int(m["stores"]) + int(m["loads"])
        kernel = Kernel(readable(m["name"]), int(m["registers"]), int(m["stack"]), spilled)
        found[m["capability"]][kernel.name] = kernel
    return {capability: sorted(kernels.values()) for capability, kernels in found.items()}


def main() -> None:
    log, shown = sys.argv[1:]
    found = read(Path(log).read_text())
    print("| kernel | registers | stack, bytes | spilled, bytes stored and loaded |")
    print("|---|---|---|---|")
    for k in found.pop(shown):
        print(f"| `{k.name}` | {k.registers} | {k.stack} | {k.spilled} |")
    print()
    for capability, kernels in found.items():
        spilling = [f"`{k.name}` {k.spilled} bytes" for k in kernels if k.spilled > 0]
        most = max(k.registers for k in kernels)
        print(
            f"* sm_{capability}: {len(kernels)} kernels, at most {most} registers; "
            f"spills: {', '.join(spilling) or 'none'}"
        )


if __name__ == "__main__":
    main()
