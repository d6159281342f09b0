"""The safeguard against its formula in NumPy, on networks that need it and on one that does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import dictionary
from torch import Tensor

from fastunroll.io import load_model, save_model
from fastunroll.nn import ALISTA, LAMP, AdaLISTA, SafeguardedNetwork
from fastunroll.solvers import ista, lasso_objective

M, N, K, BATCH = 8, 12, 4, 5


def measurements(seed: int = 5) -> Tensor:
    return torch.randn(BATCH, M, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shrink(u: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(u) * np.maximum(np.abs(u) - threshold, 0)


def good_network() -> ALISTA:
    return ALISTA(dictionary(M, N), 16, lam=0.1)


def bad_network(kind: str) -> ALISTA:
    network = good_network()
    with torch.no_grad():
        for k, step in enumerate(network.steps):
            if kind == "explodes":
                step.fill_(50.0)
            elif kind == "overflows":
                step.fill_(1e200)
            elif k % 2:
                step.fill_(3.0)
    return network


@torch.no_grad()
def guarded_transcription(
    network: ALISTA, b: np.ndarray, lam: float, ratio: float, n_layers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (batch, n) and decisions (K, batch), one sample at a time."""
    a, w = network.dictionary.numpy(), network.weight.numpy()
    s = 1 / (1.001 * np.linalg.norm(a, 2) ** 2)
    codes, kept = [], []
    for sample in b:

        def ista_step(x, sample=sample):
            return shrink(x - s * a.T @ (a @ x - sample), lam * s)

        x = np.zeros(a.shape[1])
        bound, decisions = np.linalg.norm(x - ista_step(x)), []
        for k in range(n_layers):
            y = None
            if k < network.n_layers:
                step, threshold = float(network.steps[k]), float(network.thresholds[k])
                y = shrink(x - step * w.T @ (a @ x - sample), threshold)
                residual = np.linalg.norm(y - ista_step(y))
                decisions.append(residual <= ratio * bound)
            if y is not None and decisions[-1]:
                x, bound = y, 0.25 * residual + 0.75 * bound
            else:
                x = ista_step(x)
        codes.append(x)
        kept.append(decisions)
    return np.stack(codes), np.array(kept).T


@pytest.mark.parametrize("kind", ["explodes", "alternates"])
@pytest.mark.parametrize("ratio", [0.3, 0.99])
@pytest.mark.parametrize("n_layers", [5, 16, 30])
def test_safeguard_formula(kind: str, n_layers: int, ratio: float) -> None:
    inner, b = bad_network(kind), measurements()
    network = SafeguardedNetwork(inner, lam=0.05, ratio=ratio)
    codes, kept = guarded_transcription(inner, b.numpy(), 0.05, ratio, n_layers)
    np.testing.assert_allclose(
        network.unroll(b, n_layers=n_layers).codes.detach(), codes, atol=1e-11
    )
    if n_layers == 16:
        np.testing.assert_array_equal(network.kept_steps(b), kept)
        if kind == "alternates":
            assert kept.any()
            assert not kept.all()
            assert (kept[:, :1] != kept).any(), "all samples decide alike"


@pytest.mark.parametrize("kind", ["explodes", "overflows", "alternates"])
def test_a_bad_network_is_not_worse_than_ista_in_the_limit(kind: str) -> None:
    a, b, lam = dictionary(M, N), measurements(), 0.05
    inner = bad_network(kind)
    network = SafeguardedNetwork(inner, lam=lam)
    with torch.no_grad():
        result = network.unroll(b, objective_weight=lam, n_layers=3000)
        alone = inner(b)
    solved = ista(b, a, lam, max_iterations=3000, tolerance=0.0).objective[-1]
    assert result.objective is not None
    torch.testing.assert_close(result.objective[-1], solved, rtol=1e-9, atol=0)
    if kind != "alternates":
        assert not bool((lasso_objective(alone.nan_to_num(1e9), b, a, lam) < 10 * solved).any())


def test_the_residual_never_exceeds_that_of_the_start() -> None:
    b, lam = measurements(), 0.05
    network = SafeguardedNetwork(bad_network("alternates"), lam=lam)
    with torch.no_grad():
        iterates = network.unroll(b, iterates=True, n_layers=40).iterates
    assert iterates is not None
    a = dictionary(M, N)
    s = network._step
    after = torch.nn.functional.softshrink(iterates - s * (iterates @ a.mT - b) @ a, lam * s)
    residual = (after - iterates).norm(dim=-1)
    assert bool((residual <= residual[0] * (1 + 1e-12)).all())


def test_a_good_network_keeps_its_speed() -> None:
    """ALISTA's first layers are all kept, and reach what ISTA needs many more steps for."""
    g = torch.Generator().manual_seed(1)
    a = dictionary(40, 60)
    target = torch.randn(50, 60, dtype=torch.float64, generator=g)
    target = target * (torch.rand(50, 60, generator=g) < 0.05)
    b = target @ a.mT
    inner = ALISTA(a, 12, lam=0.05)
    with torch.no_grad():
        for k, threshold in enumerate(inner.thresholds):
            threshold.fill_(max(0.3 * 0.6**k, 0.01))
            inner.steps[k].fill_(0.8)
        network = SafeguardedNetwork(inner, lam=0.01)
        kept = network.kept_steps(b)
        error, own = (
            float((codes - target).square().sum() / target.square().sum())
            for codes in (network(b), inner(b))
        )
    slow = ista(b, a, 0.01, max_iterations=12, tolerance=0.0).codes
    assert float(kept.double().mean()) > 0.8
    assert error < 2 * own
    assert error < float((slow - target).square().sum() / target.square().sum()) / 10


def test_a_network_with_a_state_is_guarded_on_its_own_way() -> None:
    b, lam = measurements(), 0.05
    inner = LAMP(dictionary(M, N), K)
    network = SafeguardedNetwork(inner, lam=lam)
    with torch.no_grad():
        kept = network.kept_steps(b)
        own = inner.unroll(b, iterates=True).iterates
        guarded = network.unroll(b, iterates=True).iterates
    assert own is not None
    assert guarded is not None
    assert bool(kept.any())
    torch.testing.assert_close(guarded[1:][kept], own[1:][kept])


def test_safeguard_results_and_gradients() -> None:
    b = measurements()
    network = SafeguardedNetwork(bad_network("alternates"), lam=0.05)
    result = network.unroll(b, objective_weight=0.3, iterates=True)
    assert result.objective is not None
    assert result.iterates is not None
    assert result.iterates.shape == (17, BATCH, N)
    torch.testing.assert_close(
        result.objective[-1], lasso_objective(result.codes, b, dictionary(M, N), 0.3)
    )
    flat = network.unroll(b[1], objective_weight=0.3, iterates=True)
    torch.testing.assert_close(flat.codes, result.codes[1])
    torch.testing.assert_close(flat.objective, result.objective[:, 1])
    torch.testing.assert_close(flat.iterates, result.iterates[:, 1])
    torch.testing.assert_close(network.kept_steps(b[1]), network.kept_steps(b)[:, 1])
    assert network(b[:0]).shape == (0, N)
    assert torch.autograd.gradcheck(
        lambda b: network.unroll(b, objective_weight=0.3)[:2], b.requires_grad_(), fast_mode=True
    )
    result.codes.sum().backward()
    assert any(p.grad is not None and bool(p.grad != 0) for p in network.parameters())


def test_a_safeguarded_network_is_saved_with_its_network(tmp_path) -> None:
    b = measurements()
    network = SafeguardedNetwork(bad_network("alternates"), lam=0.05, ratio=0.9, smoothing=0.5)
    save_model(network, tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors")
    assert isinstance(loaded, SafeguardedNetwork)
    assert torch.equal(loaded(b), network(b))
    assert json.dumps(loaded.config()) == json.dumps(network.config())
    assert loaded.n_parameters == network.n_parameters == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0.0}, "lam"),
        ({"ratio": 1.0}, "ratio must be less than 1"),
        ({"ratio": 0.0}, "ratio"),
        ({"smoothing": 1.5}, "smoothing must be at most 1"),
    ],
)
def test_bad_safeguards(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SafeguardedNetwork(good_network(), **options)


def test_a_safeguard_needs_a_layered_network_with_one_dictionary() -> None:
    with pytest.raises(TypeError, match="network must be a LayeredNetwork"):
        SafeguardedNetwork(torch.nn.Linear(2, 2))
    view = AdaLISTA(dictionary(M, N), K).with_dictionary(dictionary(M, N).expand(BATCH, M, N))
    with pytest.raises(ValueError, match=r"network.dictionary must have 2 axes"):
        SafeguardedNetwork(view)
    with pytest.raises(ValueError, match="n_layers"):
        SafeguardedNetwork(good_network()).unroll(measurements(), n_layers=0)
