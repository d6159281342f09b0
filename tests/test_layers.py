"""The architecture: nothing imports upward, and the native code knows neither torch nor Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastunroll

PACKAGE = Path(fastunroll.__file__).parent
NATIVE = Path(__file__).parent.parent / "csrc"

LAYERS = [
    {"_build", "_checks", "_cuda", "_files", "_native", "_optional", "_scalars"},
    {"backend", "planner", "program"},
    {"ops"},
    {"functional", "layers", "prepared", "runtime"},
    {"analysis", "data", "io", "losses", "metrics", "nn", "solvers", "dictionary", "training"},
    {"benchmarks", "cli", "experiments", "sklearn"},
]
"""The parts of the package, from the lowest layer to the highest."""


def layer_of(part: str) -> int:
    (layer,) = (i for i, parts in enumerate(LAYERS) if part in parts)
    return layer


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> Iterator[str]:
    """Parts of the package that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import in line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, inside = name.partition(".")
            if package == "fastunroll":
                yield inside.partition(".")[0]


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    part = part_of(path)
    for imported in imported_parts(path):
        if not any(imported in parts for parts in LAYERS):
            imported = "functional"  # the top level, or a name that it exports
        allowed = layer_of(imported) <= layer_of(part)
        assert allowed, f"{path.relative_to(PACKAGE)} imports {imported}, which lies above it"


def test_every_part_has_a_layer() -> None:
    for path in SOURCES:
        layer_of(part_of(path))


def test_native_code_includes_neither_torch_nor_python() -> None:
    files = [path for path in NATIVE.rglob("*.*") if "bindings" not in path.parts]
    assert files
    for path in files:
        for header in re.findall(r'#\s*include\s*[<"]([^>"]+)', path.read_text()):
            foreign = re.match(r"(torch|ATen|c10|pybind11|Python\.h|numpy)", header)
            assert not foreign, f"{path.relative_to(NATIVE)} includes {header}"


def test_the_kernel_bodies_use_no_standard_containers() -> None:
    allowed = {"arm_neon.h", "cmath", "cstdint", "cstring", "immintrin.h"}
    patterns = ("cpu/kernels*", "cpu/*.inl", "cpu/vec_*.h", "math/*")
    files = [found for pattern in patterns for found in NATIVE.glob(pattern)]
    assert files
    for path in files:
        headers = re.findall(r"#\s*include\s*<([^>]+)>", path.read_text())
        assert set(headers) <= allowed, f"{path.relative_to(NATIVE)} includes {headers}"
