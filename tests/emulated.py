"""The CUDA kernels compiled for the host, also as the module that a GPU would be driven by."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
FLAGS = ("-std=c++17", "-ffp-contract=off", "-Wno-unknown-pragmas")
KERNELS = sorted(CSRC.glob("cuda/*.cu"))
MACHINE = sorted(CSRC.glob("cuda/*.cpp"))
NAME = "_cuda_emulated"
MODULE_FLAGS = (
    *("-fPIC", f"-DFASTUNROLL_CUDA_MODULE={NAME}"),
    *('-DFASTUNROLL_NVCC="none"', '-DFASTUNROLL_ARCHITECTURES="emulated"'),
)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def built(
    config: pytest.Config, name: str, key: Sequence[str | Path], build: Callable[[Path], None]
) -> Path:
    """A folder of the cache that ``build`` has filled, once for what the key says or holds.

    This file and the compiler belong to the key. Test processes that ask for the same folder wait
    for the first of them.
    """
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version)
    for part in (Path(__file__), *key):
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    assert config.cache is not None
    folder = config.cache.mkdir(name) / digest.hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build(folder)
            (folder / "done").touch()
    return folder


def headers() -> list[Path]:
    """Headers that the kernels may include."""
    return sorted(path for path in CSRC.rglob("*.h") if path.parent.name != "cpu")


def compile_all(flags: Mapping[Path, Sequence[str]], folder: Path, csrc: Path = CSRC) -> list[Path]:
    """Object files of sources, each with flags of its own, on all cores."""

    def compiled(source: Path) -> Path:
        target = folder / f"{source.name}.o"
        command = ["g++", *FLAGS, *flags[source], f"-I{csrc}", f"-I{CSRC / 'include'}"]
        subprocess.run([*command, "-x", "c++", "-c", str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, flags))


def load(config: pytest.Config) -> ModuleType:
    """Compile the module, unless that was done before, and import it."""
    pybind11 = pytest.importorskip("pybind11")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    file = f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    binding = CSRC / "bindings/cuda_module.cpp"
    includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_path("include"))]

    def build(folder: Path) -> None:
        # The binding takes long enough without being optimised.
        flags = {binding: (*MODULE_FLAGS, *includes)}
        flags |= dict.fromkeys(KERNELS, (*MODULE_FLAGS, "-O1"))
        flags |= dict.fromkeys(MACHINE, (*MODULE_FLAGS, "-O2"))
        objects = compile_all(flags, folder)
        subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(folder / file)], check=True)

    key = [*includes, file, binding, *KERNELS, *MACHINE, *headers()]
    module = built(config, "cuda-emulated", key, build) / file
    spec = importlib.util.spec_from_file_location(NAME, module)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
