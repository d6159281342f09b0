"""Losses against NumPy transcriptions of their formulas, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastunroll.losses import lasso_loss, lpg_loss, supervised_loss

B, M, N, K = 5, 4, 7, 3


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


CODES, TARGET = random(B, N, seed=0), random(B, N, seed=1)
OBJECTIVE, STEPS, THRESHOLDS = random(K + 1, B, seed=2), random(K, B, seed=3), random(K, seed=4)


def test_supervised_loss() -> None:
    expected = np.mean(np.linalg.norm(CODES.numpy() - TARGET.numpy(), axis=1) ** 2)
    assert supervised_loss(CODES, TARGET).item() == pytest.approx(expected, rel=1e-14)


def test_lasso_loss() -> None:
    a, b = random(M, N, seed=5), random(B, M, seed=6)
    objectives = [
        0.5 * np.sum((a.numpy() @ x - y) ** 2) + 0.3 * np.abs(x).sum()
        for x, y in zip(CODES.numpy(), b.numpy(), strict=True)
    ]
    assert lasso_loss(CODES, b, a, 0.3).item() == pytest.approx(np.mean(objectives), rel=1e-14)


@pytest.mark.parametrize("per_sample", [True, False])
def test_lpg_loss(per_sample: bool) -> None:
    steps = STEPS if per_sample else STEPS[:, 0]
    alpha = STEPS.numpy() if per_sample else np.tile(STEPS[:, :1].numpy(), (1, B))
    samples = []
    for i in range(B):
        value = np.sum((CODES[i] - TARGET[i]).numpy() ** 2)
        for k in range(K):
            value += 0.7 * max(0.0, float(OBJECTIVE[k + 1, i] - OBJECTIVE[k, i]))
            value += 0.2 * (alpha[k, i] ** 2 + float(THRESHOLDS[k]) ** 2)
        samples.append(value)
    loss = lpg_loss(CODES, TARGET, OBJECTIVE, steps, THRESHOLDS, beta=0.7, gamma=0.2)
    assert loss.item() == pytest.approx(np.mean(samples), rel=1e-14)


def test_lpg_loss_without_penalties_is_the_supervised_loss() -> None:
    loss = lpg_loss(CODES, TARGET, OBJECTIVE, STEPS, THRESHOLDS, beta=0.0, gamma=0.0)
    assert torch.equal(loss, supervised_loss(CODES, TARGET))


def test_lpg_loss_gradient() -> None:
    inputs = [t.clone().requires_grad_() for t in (CODES, OBJECTIVE, STEPS, THRESHOLDS)]

    def loss(codes: Tensor, objective: Tensor, steps: Tensor, thresholds: Tensor) -> Tensor:
        return lpg_loss(codes, TARGET, objective, steps, thresholds, beta=0.7, gamma=0.2)

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": TARGET[:, 1:]}, r"target must have shape \(5, 7\)"),
        ({"objective": OBJECTIVE[1:]}, r"objective must have shape \(4, 5\)"),
        ({"steps": STEPS[1:]}, r"steps must have shape \(3, 5\)"),
        ({"steps": STEPS[1:, 0]}, r"steps must have shape \(3,\)"),
        ({"thresholds": THRESHOLDS[:, None]}, "thresholds must have 1 axes"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"gamma": float("nan")}, "gamma must be finite"),
    ],
)
def test_bad_input(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "codes": CODES,
        "target": TARGET,
        "objective": OBJECTIVE,
        "steps": STEPS,
        "thresholds": THRESHOLDS,
        "beta": 1.0,
        "gamma": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        lpg_loss(**{**arguments, **changes})  # type: ignore[arg-type]


def test_target_of_another_dtype() -> None:
    with pytest.raises(TypeError, match=r"target has dtype torch.float32"):
        supervised_loss(CODES, TARGET.float())
