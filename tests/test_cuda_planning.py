"""What is decided before a kernel runs: precision, form, dtypes; on tensors that do not exist."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers import make_arguments
from torch._subclasses.fake_tensor import FakeTensorMode

import fastunroll
from fastunroll import planner, soft_threshold, unrolled_prox_gradient, use_precision
from fastunroll.ops.cuda_network import Precision, precision_of

H200 = SimpleNamespace(major=9, minor=0)
CARD = SimpleNamespace(major=8, minor=9)
GRAM = make_arguments(dtype=torch.float32)
FACTORED = make_arguments(form="factored", dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "gram", "factored"),
    [
        ("auto", Precision.SPLIT, Precision.SPLIT),
        ("float32", Precision.SPLIT, Precision.SPLIT),
        ("tf32", Precision.TF32, Precision.TF32),
        ("mixed", Precision.SPLIT, Precision.MIXED),
    ],
)
def test_precision_that_is_asked_for(name: str, gram: Precision, factored: Precision) -> None:
    with use_precision(name):
        assert (precision_of(GRAM, H200), precision_of(FACTORED, H200)) == (gram, factored)
        assert precision_of(make_arguments(form="factored"), H200) is Precision.PLAIN  # float64
    assert precision_of(FACTORED, H200) is Precision.SPLIT


def test_float32_does_without_tensor_cores_that_are_no_faster() -> None:
    assert precision_of(GRAM, CARD) is Precision.PLAIN
    with use_precision("tf32"):
        assert precision_of(GRAM, CARD) is Precision.TF32


@pytest.mark.parametrize("name", ["high", "highest"])
def test_tf32_follows_pytorch(name: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        expected = Precision.TF32 if name == "high" else Precision.SPLIT
        assert precision_of(GRAM, H200) is expected
        with use_precision("float32"):
            assert precision_of(GRAM, H200) is Precision.SPLIT
    finally:
        torch.set_float32_matmul_precision(before)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of"), use_precision("fp8"):
        pass


def test_products_on_a_gpu_are_dense() -> None:
    """Counts by hand: 10 samples, 3 layers, m = 4, n = 5."""
    plan = planner.plan(10, (4, 5), 3, device="cuda")
    assert plan.costs == {"gram": 30 * 25 + 100, "factored": 30 * 40}
    learned = planner.plan(10, (4, 5), 3, learns_matrices=True, n_weights=3, device="cuda")
    assert learned.costs == {
        "gram": 4 * 750 + 3 * 300,
        "factored": 4 * 1200,
        "mixed": 750 + 300 + 3 * 1200,
    }
    assert planner.plan(10, (4, 5), 3, density=0.01, device="cuda") == plan


def test_the_mixed_precision_favours_the_factored_form() -> None:
    assert planner.plan_prepared((250, 500), device="cuda").form == "gram"
    with use_precision("mixed"):
        assert planner.plan_prepared((250, 500), device="cuda").form == "factored"
        assert planner.plan(16384, (250, 500), 16, device="cuda").form == "factored"


def test_explain_tells_of_a_gpu() -> None:
    text = fastunroll.explain(64, (250, 500), 16, learns_matrices=True, device="cuda")
    assert "GPU" in text
    assert "density" not in text
    assert "prepared once with prepare(): gram" in text
    with pytest.raises(ValueError, match="device must be one of"):
        fastunroll.explain(64, (250, 500), 16, device="tpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_gpu(dtype: torch.dtype) -> None:
    with FakeTensorMode():
        b = torch.empty(3, 4, dtype=dtype, device="cuda")
        a = torch.empty(4, 6, device="cuda")
        result = unrolled_prox_gradient(
            b, a, step=0.1, threshold=0.1, n_layers=2, iterates=True, objective_weight=1.0
        )
        assert result.codes.dtype == dtype
        assert result.codes.shape == (3, 6)
        assert result.iterates is not None
        assert result.iterates.dtype == dtype
        assert result.objective is not None
        assert result.objective.dtype == torch.float32
        assert soft_threshold(b, 0.1).dtype == dtype
        with pytest.raises(TypeError, match="dictionary must be float32 or float64"):
            unrolled_prox_gradient(b, a.to(dtype), step=0.1, threshold=0.1, n_layers=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_cpu_is_refused(dtype: torch.dtype) -> None:
    b, a = torch.zeros(3, 4, dtype=dtype), torch.zeros(4, 6)
    with pytest.raises(TypeError, match="measurements must be float32 or float64"):
        unrolled_prox_gradient(b, a, step=0.1, threshold=0.1, n_layers=2)
    with pytest.raises(TypeError, match="u must be float32 or float64"):
        soft_threshold(b, 0.1)
