"""The CUDA kernels compiled for the host, as the module that the package would load on a GPU."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
NAME = "_cuda_emulated"
FLAGS = [
    *("-std=c++17", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas", f"-I{CSRC}"),
    *(f"-I{CSRC / 'include'}", f"-DFASTUNROLL_CUDA_MODULE={NAME}"),
    *('-DFASTUNROLL_NVCC="none"', '-DFASTUNROLL_ARCHITECTURES="emulated"'),
]


def load(config: pytest.Config) -> ModuleType:
    """Compile, unless that was done before, and import."""
    pybind11 = pytest.importorskip("pybind11")
    if shutil.which("g++") is None or not CSRC.exists():
        pytest.skip("needs g++ and the sources")
    kernels = (path for suffix in ("cu", "cpp") for path in (CSRC / "cuda").glob(f"*.{suffix}"))
    sources = [*sorted(kernels), CSRC / "bindings/cuda_module.cpp"]
    headers = [path for path in CSRC.rglob("*.h") if path.parent.name != "cpu"]
    digest = hashlib.sha256("".join(FLAGS).encode())
    for path in sorted([*sources, *headers]):
        digest.update(path.read_bytes())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert config.cache is not None
    folder = config.cache.mkdir("cuda-emulated") / digest.hexdigest()[:16]
    module = folder / f"{NAME}{suffix}"
    if not module.exists():
        folder.mkdir(exist_ok=True)
        build(sources, module, [pybind11.get_include(), sysconfig.get_path("include")])
    spec = importlib.util.spec_from_file_location(NAME, module)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def build(sources: list[Path], module: Path, includes: list[str]) -> None:
    own = f"{os.getpid()}"  # other test processes may build the same
    flags = [*FLAGS, *(f"-I{path}" for path in includes)]

    def compiled(source: Path) -> str:
        target = str(module.parent / f"{source.name}.{own}.o")
        level = "-O1" if source.parent.name == "cuda" else "-O0"  # the binding takes long enough
        command = ["g++", level, *flags, "-x", "c++", "-c", str(source), "-o", target]
        subprocess.run(command, check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    linked = f"{module}.{own}"
    subprocess.run(["g++", "-shared", *objects, "-o", linked], check=True)
    os.replace(linked, module)
    for path in objects:
        Path(path).unlink()
