"""Bad arguments of the public functions: one line that names the argument and what was expected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import dictionary
from torch import Tensor

import fastunroll
from fastunroll import GradientNormStep

B, M, N, K = 5, 12, 20, 3
NAN, INF = float("nan"), float("inf")
A = dictionary(M, N)
b = torch.ones(B, M, dtype=torch.float64)


def ones(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


def rule(weight: object, bias: object = ones(K), low: float = 0.1, high: float = 1.0) -> object:
    return GradientNormStep(weight, bias, low, high)  # type: ignore[arg-type]


def case_id(part: object) -> str:
    """Name the argument that a case changes; pytest numbers repeated names."""
    return next(iter(part)) if isinstance(part, dict) else ""


UNROLL_ERRORS: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"measurements": [1.0]}, TypeError, "measurements must be a torch.Tensor, got list"),
    ({"measurements": b.long()}, TypeError, "measurements must be float32 or float64.*int64"),
    ({"measurements": b.half()}, TypeError, "measurements must be float32 or float64.*float16"),
    ({"measurements": b.to_sparse()}, TypeError, "measurements must be a dense"),
    ({"measurements": b[None]}, ValueError, r"measurements must have 1 or 2 axes.*\(1, 5, 12\)"),
    ({"measurements": b[:, :9]}, ValueError, r"measurements must .*\(12, 20\).*shape \(5, 9\)"),
    ({"measurements": b[0, :9]}, ValueError, r"measurements must .*\(12, 20\).*shape \(9,\)"),
    ({"measurements": b.float()}, TypeError, "measurements has dtype .*32 but dictionary has .*64"),
    (
        {"measurements": b.to("meta")},
        ValueError,
        "measurements is on meta but dictionary is on cpu",
    ),
    ({"dictionary": A.numpy()}, TypeError, "dictionary must be a torch.Tensor, got ndarray"),
    ({"dictionary": A[0]}, ValueError, r"dictionary must have 2 axes, got shape \(20,\)"),
    ({"weight": A.numpy()}, TypeError, "weight must be a torch.Tensor"),
    ({"weight": A.float()}, TypeError, "weight has dtype .*32 but dictionary has .*64"),
    ({"weight": A[:, 1:]}, ValueError, r"weight .*shape \(12, 20\), got shape \(12, 19\)"),
    ({"weight": A.expand(2, M, N)}, ValueError, r"number of layers \(n_layers: 3, weight: 2\)"),
    ({"weight": A.expand(0, M, N)}, ValueError, r"weight .*shape \(0, 12, 20\)"),
    ({"weight": A, "dictionary": fastunroll.prepare(A)}, ValueError, r"weight .*prepare\(\)"),
    ({"step": 0.0}, ValueError, "step must be greater than 0"),
    ({"step": -1}, ValueError, "step must be greater than 0"),
    ({"step": NAN}, ValueError, "step must be finite"),
    ({"step": "1"}, TypeError, "step must be a number, got str"),
    ({"step": True}, TypeError, "step must be a number, got bool"),
    ({"step": ones(K, dtype=torch.float32)}, TypeError, "step has dtype .*32 but measurements"),
    ({"step": ones(4)}, ValueError, r"number of layers \(n_layers: 3, step: 4\)"),
    ({"step": ones(K, 7)}, ValueError, r"step must be .*\(3, 20\).*got shape \(3, 7\)"),
    ({"step": ones(K, 4, 1)}, ValueError, r"step must be .*\(3, 5, 1\).*got shape \(3, 4, 1\)"),
    ({"step": ones(K, B, N, 1)}, ValueError, "step must have .* axes"),
    ({"step": torch.tensor([1.0, 0.0, 1.0]).double()}, ValueError, "step must be positive"),
    ({"step": INF * ones(K)}, ValueError, "step must be .*finite"),
    ({"step": rule(ones(K), low=-1.0)}, ValueError, r"step\.minimum must be at least 0"),
    ({"step": rule(ones(K), high=NAN)}, ValueError, r"step\.maximum must be finite"),
    ({"step": rule(ones(K), low=2.0)}, ValueError, r"step\.maximum must be at least 2, got 1"),
    ({"step": rule(ones(K), ones(2))}, ValueError, r"step\.bias .*shape \(3,\).*shape \(2,\)"),
    ({"step": rule(NAN * ones(K))}, ValueError, r"step\.weight .*must be finite"),
    ({"step": rule(0.1, 0.1)}, TypeError, r"step\.weight must be a torch.Tensor"),
    ({"step": rule(ones(K).float())}, TypeError, r"step\.weight has dtype"),
    ({"threshold": -0.1}, ValueError, "threshold must be at least 0"),
    ({"threshold": -ones(K)}, ValueError, "threshold must be finite and not negative"),
    ({"threshold": NAN * ones(K, N)}, ValueError, "threshold must be finite and not negative"),
    ({"threshold": ones(K, B, 2)}, ValueError, r"threshold must be .*got shape \(3, 5, 2\)"),
    ({"n_layers": None}, ValueError, "n_layers must be given"),
    ({"n_layers": 0}, ValueError, "n_layers must be at least 1"),
    ({"n_layers": 2.5}, TypeError, "n_layers must be an int"),
    ({"n_layers": "3"}, TypeError, "n_layers must be an int"),
    ({"momentum": 0.5}, TypeError, "momentum must be a torch.Tensor"),
    ({"momentum": ones(K, 1)}, ValueError, r"momentum must have 1 axes, got shape \(3, 1\)"),
    ({"momentum": ones(2)}, ValueError, r"number of layers \(n_layers: 3, momentum: 2\)"),
    ({"momentum": NAN * ones(K)}, ValueError, "momentum must be finite"),
    (
        {"prox": "l1"},
        ValueError,
        "prox must be one of soft, nonnegative, hard, smooth, firm, scad; got 'l1'",
    ),
    ({"prox": "firm"}, ValueError, "prox_shape must be given with prox 'firm'"),
    ({"prox_shape": 2.0}, ValueError, "prox_shape must be None with prox 'soft'"),
    ({"prox": "firm", "prox_shape": 1.0}, ValueError, "prox_shape must be greater than 1, got 1"),
    ({"prox": "scad", "prox_shape": 2}, ValueError, "prox_shape must be greater than 2, got 2"),
    ({"prox": "firm", "prox_shape": INF}, ValueError, "prox_shape must be finite"),
    ({"prox": "firm", "prox_shape": "2"}, TypeError, "prox_shape must be a number, got str"),
    ({"prox": "firm", "prox_shape": ones(K)}, ValueError, r"prox_shape .*greater than 1 \(firm\)"),
    ({"prox": "scad", "prox_shape": 2 * ones(K)}, ValueError, r"prox_shape .*or 2 \(scad\)"),
    ({"prox": "scad", "prox_shape": NAN * ones(K)}, ValueError, "prox_shape must be finite"),
    (
        {"prox": "scad", "prox_shape": 3 * ones(4)},
        ValueError,
        r"layers \(n_layers: 3, prox_shape: 4",
    ),
    (
        {"prox": "scad", "prox_shape": 3 * ones(1, K)},
        ValueError,
        "prox_shape must have 0 or 1 axes",
    ),
    ({"prox": "scad", "prox_shape": ones(K).float()}, TypeError, "prox_shape has dtype"),
    ({"prox": "smooth", "threshold": -ones(K)}, ValueError, "threshold must be finite and not neg"),
    ({"prox": "smooth", "bypass": (1, 1, 1)}, ValueError, "bypass must be 0 with prox 'smooth'"),
    ({"bypass": (1,)}, ValueError, r"number of layers \(n_layers: 3, bypass: 1\)"),
    ({"bypass": (1, -1, 0)}, ValueError, r"bypass must hold counts.*\(1, -1, 0\)"),
    ({"bypass": 2}, TypeError, "bypass must"),
    ({"bypass": (1.5, 1, 1)}, TypeError, "bypass must"),
    ({"initial": [0.0]}, TypeError, "initial must be a torch.Tensor"),
    ({"initial": ones(B, M)}, ValueError, r"initial .*shape \(5, 20\).*got shape \(5, 12\)"),
    ({"initial": ones(B, N).float()}, TypeError, "initial has dtype"),
    ({"previous": ones(4, N)}, ValueError, r"previous .*shape \(5, 20\).*got shape \(4, 20\)"),
    ({"previous": ones(B, N).requires_grad_()}, ValueError, "previous must not require a gradient"),
    ({"objective_weight": -1.0}, ValueError, "objective_weight must be at least 0"),
    ({"objective_weight": INF}, ValueError, "objective_weight must be finite"),
    ({"form": "dense"}, ValueError, "form must be one of auto, gram, factored, mixed; got 'dense'"),
]


@pytest.mark.parametrize(("change", "error", "message"), UNROLL_ERRORS, ids=case_id)
def test_unrolled_prox_gradient_names_the_argument(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    given = {"measurements": b, "dictionary": A, "step": 0.1, "threshold": 0.1, "n_layers": K}
    with pytest.raises(error, match=message) as caught:
        fastunroll.unrolled_prox_gradient(**{"form": "gram", **given, **change})
    assert "\n" not in str(caught.value)


GRAM_ERRORS: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"linear": None}, TypeError, "linear must be a torch.Tensor, got NoneType"),
    ({"linear": ones(2, B, N)}, ValueError, r"linear must hold 1 or 3 layers.*\(2, 5, 20\)"),
    ({"gram": ones(N, M)}, ValueError, r"gram must end in \(20, 20\).*\(5, 20\).*20, 12\)"),
    ({"gram": ones(2, N, N)}, ValueError, "number of layers .*n_layers: 3"),
    ({"gram": ones(N, N).float()}, TypeError, "gram has dtype .*32 but linear has .*64"),
    ({"step": rule(ones(K))}, TypeError, "step must be a number or a tensor"),
    ({"initial": ones(B, M)}, ValueError, r"initial .*got shape \(5, 12\)"),
]


@pytest.mark.parametrize(("change", "error", "message"), GRAM_ERRORS, ids=case_id)
def test_unrolled_gram_names_the_argument(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    given = {"linear": ones(B, N), "gram": ones(N, N), "step": 0.1, "threshold": 0.1}
    with pytest.raises(error, match=message):
        fastunroll.unrolled_gram(**{"n_layers": K, **given, **change})


def test_prox_gradient_step_names_the_argument() -> None:
    with pytest.raises(TypeError, match=r"codes must be a torch.Tensor"):
        fastunroll.prox_gradient_step(None, b, A, step=0.1, threshold=0.1)
    with pytest.raises(ValueError, match=r"measurements must have 2 axes, got shape \(12,\)"):
        fastunroll.prox_gradient_step(ones(B, N), b[0], A, step=0.1, threshold=0.1)
    with pytest.raises(ValueError, match=r"shape \(5, 20\).*got shape \(5, 12\)"):
        fastunroll.prox_gradient_step(ones(B, M), b, A, step=0.1, threshold=0.1)
    with pytest.raises(ValueError, match=r"threshold must be .*got shape \(1, 7\)"):
        fastunroll.prox_gradient_step(ones(B, N), b, A, step=0.1, threshold=ones(7))


def test_prepare_names_the_argument() -> None:
    with pytest.raises(ValueError, match="dictionary contains NaN or Inf"):
        fastunroll.prepare(NAN * A)
    with pytest.raises(ValueError, match=r"dictionary has 1 column\(s\) of zeros.*column 7"):
        fastunroll.prepare(A * (torch.arange(N) != 7))
    with pytest.raises(ValueError, match=r"dictionary must not be empty, got shape \(0, 20\)"):
        fastunroll.prepare(A[:0])
    with pytest.raises(ValueError, match="weight contains NaN or Inf"):
        fastunroll.prepare(A, A / 0)
    with pytest.raises(ValueError, match=r"weight .*\(12, 20\), got shape \(20, 12\)"):
        fastunroll.prepare(A, A.mT)
    with pytest.raises(ValueError, match="form must be one of auto, gram, factored"):
        fastunroll.prepare(A, form="fast")


@pytest.mark.parametrize("shrink", [fastunroll.soft_threshold, fastunroll.smooth_soft_threshold])
def test_shrinkages_name_the_argument(shrink: Callable[[object, object], Tensor]) -> None:
    with pytest.raises(TypeError, match=r"u must be a torch.Tensor, got float"):
        shrink(1.0, 0.1)
    with pytest.raises(ValueError, match="u must have 1 or 2 axes"):
        shrink(b[None], 0.1)
    with pytest.raises(ValueError, match="threshold must be at least 0, got -1"):
        shrink(b, -1)
    with pytest.raises(ValueError, match="threshold must be finite and not negative"):
        shrink(b, -ones(M))
    with pytest.raises(ValueError, match=r"threshold must be .*\(5, 12\), got shape \(5,\)"):
        shrink(b, ones(B))
    with pytest.raises(TypeError, match=r"threshold has dtype .*32 but u has .*64"):
        shrink(b, ones(M).float())
