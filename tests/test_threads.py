"""Threads and the process: one OpenMP runtime, the caller's number of threads, a quick import."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import dictionary

import fastunroll

needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@needs_proc
@pytest.mark.parametrize("first", ["fastunroll.runtime", "torch"])
def test_one_openmp_runtime(first: str) -> None:
    code = f"""
import {first}, fastunroll, torch
fastunroll.soft_threshold(torch.randn(2000, 1000), 0.1)
lines = open("/proc/self/maps").read().splitlines()
print(*sorted({{line.split()[-1] for line in lines if "gomp" in line or "iomp" in line}}))
"""
    assert len(run_python(code).split()) == 1


@needs_proc
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_of_torch_are_honoured(threads: int) -> None:
    code = f"""
import os, torch, fastunroll
torch.set_num_threads({threads})
a = torch.randn(50, 100) / 10
b = torch.randn(1000, 50)
before = len(os.listdir("/proc/self/task"))
t = torch.full((5,), 0.1, requires_grad=True)
fastunroll.unrolled_prox_gradient(b, a, step=0.1, threshold=t, form="factored").codes.sum()
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert int(run_python(code)) == threads - 1


def test_import_is_quick_and_loads_no_optional_package() -> None:
    code = """
import sys, time, torch
before = set(sys.modules)
start = time.process_time()
from fastunroll import prepare
print(time.process_time() - start, *{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    runs = [run_python(code).split() for _ in range(2)]
    assert min(float(run[0]) for run in runs) < 1.0  # seconds of processor, on top of torch
    optional = {"jinja2", "matplotlib", "rich", "skimage", "sklearn", "tensorboard", "typer"}
    assert not optional & set(runs[0])


def test_calls_from_several_python_threads() -> None:
    prepared = fastunroll.prepare(dictionary(40, 80))
    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(24, 50, 40, dtype=torch.float64, generator=generator)

    def encode(b: torch.Tensor) -> torch.Tensor:
        t = torch.full((6,), 0.05, dtype=torch.float64, requires_grad=True)
        x = fastunroll.unrolled_prox_gradient(b, prepared, step=0.2, threshold=t).codes
        return torch.autograd.grad(x.square().sum(), t)[0]

    expected = [encode(b) for b in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encode, batches))
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
