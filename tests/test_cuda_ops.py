"""The CUDA backend without a GPU: its Python side on the kernels as compiled for the host.

The devices below are made up: their sizes choose the path that a problem takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import emulated
import pytest
import torch
from helpers import (
    all_needed,
    assert_close,
    assert_same_bits,
    cast,
    dictionary,
    make_arguments,
    output_gradients,
)
from test_accuracy import assert_not_worse_than_torch, relative_error
from test_unrolled import CASES
from torch import Tensor

from fastunroll.backend import use_precision
from fastunroll.ops import cuda, cuda_composed, reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments
from fastunroll.ops.cuda_network import Kernels, Precision

DEVICES = {
    "cluster": (16, 227 << 10, 8, 9, 0),
    "tile": (2, 227 << 10, 1, 8, 0),
    "composed": (2, 0, 1, 8, 0),
    "card": (2, 99 << 10, 1, 8, 9),
}
PATHS = {"composed": 0, "tile": 1, "cluster": 2}
SMALL = {"batch": 3, "m": 12, "n": 20, "layers": 3}
ODD = {"batch": 17, "m": 9, "n": 133, "layers": 2}


@pytest.fixture(scope="session")
def module(request: pytest.FixtureRequest) -> ModuleType:
    return emulated.load(request.config)


@pytest.fixture(scope="session")
def backends(module: ModuleType) -> dict[str, cuda.Backend]:
    made = {}
    for name, device in DEVICES.items():
        made[name] = cuda.Backend(Kernels(module))
        made[name].kernels._devices[torch.device("cpu")] = module.Device(*device)
    return made


def check(backend: cuda.Backend, a: UnrolledArguments, tolerance: float) -> None:
    """Compare results and every gradient with the reference."""
    results = backend.unrolled(*a)
    for name, ours, expected in zip(
        ("codes", "objective", "iterates"), results, reference.unrolled(a), strict=True
    ):
        assert_close(ours, expected, tolerance, name)
    grads, needs = output_gradients(a), all_needed(a)
    ours_all = backend.unrolled_backward(*grads, *a, needs)
    expected_all = reference.unrolled_backward(*grads, a, needs)
    for name, ours, expected in zip(
        a._fields[:N_DIFFERENTIABLE], ours_all, expected_all, strict=True
    ):
        assert_close(ours, expected, tolerance, f"gradient of {name}")


@pytest.mark.parametrize(
    ("path", "size"),
    [("tile", SMALL), ("tile", ODD), ("composed", SMALL)],
    ids=["tile, small", "tile, odd", "composed"],
)
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference_in_float64(
    backends: dict[str, cuda.Backend], case: str, path: str, size: dict[str, int]
) -> None:
    check(backends[path], make_arguments(**CASES[case], **size, level=0.3), 1e-9)


FLOAT32_CASES = ["gram", "gram, rule", "factored, W = A", "factored, momentum"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", FLOAT32_CASES)
def test_float32_errors_are_at_most_twice_those_of_pytorch(
    backends: dict[str, cuda.Backend], case: str, device: str
) -> None:
    backend = backends[device]
    errors: dict[str, list[float]] = {"ours": [0.0], "torch": [0.0]}
    for seed in range(3):
        a = make_arguments(**CASES[case], batch=5, m=40, n=72, layers=3, level=1e-3, seed=seed)
        single = cast(a, torch.float32)
        exact = reference.unrolled(cast(single, torch.float64))[0]
        errors["ours"].append(relative_error(backend.unrolled(*single)[0], exact))
        errors["torch"].append(relative_error(reference.unrolled(single)[0], exact))
    assert_not_worse_than_torch(max(errors["ours"]), max(errors["torch"]), f"{case}, {device}")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["gram", "factored"])
def test_the_device_chooses_the_path(
    backends: dict[str, cuda.Backend], form: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 gradients on every path, and proof that the path was taken."""
    backend, taken = backends[path], set()
    a = cast(make_arguments(form=form, **ODD, level=0.3), torch.float32)
    device = backend.kernels.describe(torch.device("cpu"))
    monkeypatch.setattr(backend.kernels, "describe", lambda _: (taken.add(1), device)[1])
    bound = cuda.Bound(backend.kernels, a, Precision.SPLIT)
    assert bound.network.plan_forward(device).path == PATHS[path]
    check(backend, a, 2e-4)
    assert taken


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("tf32", 1e-2), ("mixed", 3e-2)]
)
@pytest.mark.parametrize("case", ["gram", "factored", "factored, W = A", "factored, W per layer"])
def test_the_precision_is_what_was_asked_for(
    backends: dict[str, cuda.Backend], case: str, precision: str, tolerance: float
) -> None:
    """Errors lie below the mode's bound, and are not float32's where products are rounded."""
    a = cast(make_arguments(**CASES[case], **ODD, level=1e-3), torch.float32)
    exact = reference.unrolled(cast(a, torch.float64))[0]
    with use_precision(precision):
        error = relative_error(backends["tile"].unrolled(*a)[0], exact)
    assert error < tolerance
    rounded = precision == "tf32" or (precision == "mixed" and "factored" in case)
    assert (error > 1e-5) == rounded


@pytest.mark.parametrize("precision", ["float32", "mixed"])
@pytest.mark.parametrize("case", ["gram", "factored", "factored, W = A", "factored, W per layer"])
def test_prepared_matrices_change_no_bit(
    backends: dict[str, cuda.Backend], case: str, precision: str
) -> None:
    backend = backends["tile"]
    a = cast(make_arguments(**CASES[case], **SMALL, level=0.1), torch.float32)
    given = a.dictionary if a.gram is None else dictionary(SMALL["m"], SMALL["n"], torch.float32)
    assert given is not None
    prepared = backend.prepare(a.gram, given, a.weight)
    incoming, needs = output_gradients(a), all_needed(a)
    with use_precision(precision):
        expected = backend.unrolled(*a), backend.unrolled_backward(*incoming, *a, needs)
        a = a._replace(packed=prepared)
        ours = backend.unrolled(*a), backend.unrolled_backward(*incoming, *a, needs)
    for mine, plain in zip(ours, expected, strict=True):
        for i, (x, y) in enumerate(zip(mine, plain, strict=True)):
            assert_same_bits(x, y, f"result {i}")


@pytest.mark.parametrize("case", ["gram, rule, everything", "factored, everything"])
def test_a_part_of_the_batch_at_a_time_gives_the_same(
    backends: dict[str, cuda.Backend], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_composed, "TRACE_BYTES", 1 << 15)
    check(backends["composed"], make_arguments(**CASES[case], **ODD, level=0.3), 1e-9)


@pytest.mark.parametrize("path", ["tile", "composed"])
def test_only_what_is_needed_is_returned(backends: dict[str, cuda.Backend], path: str) -> None:
    a = make_arguments(**CASES["factored, everything"], **SMALL)
    grads = output_gradients(a)
    for wanted in ("dictionary", "weight", "measurements", "initial", "step", "momentum"):
        needs = [name == wanted for name in a._fields[:N_DIFFERENTIABLE]]
        found = backends[path].unrolled_backward(*grads, *a, needs)
        expected = reference.unrolled_backward(*grads, a, needs)
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs, 1e-9, f"gradient of {wanted}")


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("path", ["tile", "composed"])
def test_gram_without_its_linear_part(
    backends: dict[str, cuda.Backend], path: str, tied: bool, learned: bool
) -> None:
    """A learned G stands beside c = b W; one that is not is a shortcut of the forward pass."""
    a = make_arguments(form="factored", tied=tied, objective=True, **SMALL)
    assert a.dictionary is not None
    weight = a.dictionary if a.weight is None else a.weight[0]
    a = a._replace(gram=(a.dictionary.mT @ weight)[None])
    grads = output_gradients(a)
    needs = [t is not None and (learned or t is not a.gram) for t in a.differentiable]
    found = backends[path].unrolled_backward(*grads, *a, needs)
    expected = reference.unrolled_backward(*grads, a, needs)
    for name, ours, theirs in zip(a._fields, found, expected, strict=False):
        assert_close(ours, theirs, 1e-9, f"gradient of {name}")


# --- The bare shrinkage

THRESHOLDS: dict[str, Callable[[int, int], Sequence[int]]] = {
    "scalar": lambda rows, n: (),
    "one": lambda rows, n: (1,),
    "per atom": lambda rows, n: (n,),
    "per atom, 2-D": lambda rows, n: (1, n),
    "per sample": lambda rows, n: (rows, 1),
}
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("prox", ["soft", "nonnegative", "smooth"])
@pytest.mark.parametrize("kind", THRESHOLDS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 64), (37, 131)], ids=str)
def test_shrinkage(
    backends: dict[str, cuda.Backend],
    shape: tuple[int, int],
    kind: str,
    prox: str,
    dtype: torch.dtype,
) -> None:
    g = torch.Generator().manual_seed(4)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=g, dtype=torch.float64).to(dtype)

    u, grad, threshold = draw(*shape), draw(*shape), draw(*THRESHOLDS[kind](*shape)).abs()
    backend = backends["tile"]
    double: Any = (u.double(), threshold.double(), prox)
    expected = reference.shrink(*double)
    assert_close(backend.shrink(u, threshold, prox), expected, ROUNDING[dtype], "value")
    ours = backend.shrink_backward(grad, u, threshold, prox)
    wanted = reference.shrink_backward(grad.double(), *double)
    for name, mine, theirs in zip(("u", "threshold"), ours, wanted, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, theirs, 2 * ROUNDING[dtype], f"gradient of {name}")


def test_shrinkage_of_one_sample_and_of_strided_input(backends: dict[str, cuda.Backend]) -> None:
    backend, t = backends["tile"], torch.tensor(0.3)
    u = torch.randn(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(backend.shrink(u, t, "soft"), reference.soft_threshold(u, t))
    columns = u.view(10, 5).mT
    per_atom = u.abs()[::5]
    per_sample = u.abs().view(10, 5)[:5, 1:2]  # 5 elements apart
    for threshold in (per_atom, per_sample):
        expected = reference.soft_threshold(columns, threshold)
        assert torch.equal(backend.shrink(columns, threshold, "soft"), expected)


def test_an_error_of_a_kernel_is_raised(module: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="CUDA kernel: no image"):
        Kernels(module).check("no image")
