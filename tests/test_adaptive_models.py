"""Networks whose rule depends on the sample, against their formulas in NumPy, one sample a time."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import dictionary
from lista_cases import shrink
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from fastunroll.io import load_model, save_model
from fastunroll.nn import GLISTA, LAMP, NAALISTA, TISTA, HyperLISTA, SupportSelection
from fastunroll.nn.iterated import IteratedNetwork
from fastunroll.solvers import lasso_objective

Array = NDArray[np.float64]

M, N, K, BATCH = 12, 20, 12, 6
SELECTION = SupportSelection(6.0, 30.0)

MAKERS: dict[str, Callable[[Tensor, int], IteratedNetwork]] = {
    "TISTA": lambda a, k: TISTA(a, k, density=0.2, amplitude_std=1.3, noise_std=0.1),
    "LAMP": lambda a, k: LAMP(a, k),
    "NAALISTA": lambda a, k: NAALISTA(a, k, n_hidden=3, support_selection=SELECTION),
    "NAALISTA without selection": lambda a, k: NAALISTA(a, k, n_hidden=3, support_selection=None),
    "HyperLISTA": lambda a, k: HyperLISTA(a, k, threshold_factor=0.05),
    "HyperLISTA plain": lambda a, k: HyperLISTA(a, k, symmetric=False, threshold_factor=0.05),
    "GLISTA": lambda a, k: GLISTA(a, k),
    "GLISTA with selection": lambda a, k: GLISTA(a, k, support_selection=SELECTION),
}

each = pytest.mark.parametrize("name", MAKERS)


def make(name: str, m: int = M, n: int = N, k: int = K) -> IteratedNetwork:
    """A network with every learned number moved away from its start."""
    torch.manual_seed(0)
    network = MAKERS[name](dictionary(m, n), k)
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for label, p in network.named_parameters():
            noise = torch.rand(p.shape, generator=g, dtype=torch.float64) - 0.5
            p += 0.4 * (p if isinstance(network, HyperLISTA) else 1.0) * noise
            if label.startswith("thresholds"):
                p.abs_()
    return network


def measurements(m: int = M, n: int = N, batch: int = BATCH) -> Tensor:
    g = torch.Generator().manual_seed(5)
    codes = torch.randn(batch, n, generator=g, dtype=torch.float64)
    codes *= torch.rand(batch, n, generator=g, dtype=torch.float64) < 0.2
    return codes @ dictionary(m, n).T + 0.1 * torch.randn(batch, m, generator=g).double()


def soft(u: Array, threshold: float, count: int = 0) -> Array:
    return shrink(u, threshold, "soft", count)


def state(network: IteratedNetwork) -> dict[str, Array]:
    return {name: p.detach().numpy() for name, p in network.named_parameters()}


def normal(z: Array, variance: float) -> Array:
    return np.exp(-(z**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def analytic(a: Array) -> Array:
    w = np.linalg.solve(a @ a.T, a)
    return w / np.sum(w * a, axis=0)


def tista(network: TISTA, b: Array) -> list[Array]:
    a, p = network.dictionary.numpy(), state(network)
    rho, alpha2, sigma2 = network.density, network.amplitude_std**2, network.noise_std**2
    (m, n), w = a.shape, np.linalg.pinv(a)
    x, found = np.zeros(n), []
    for k in range(K):
        g, r = p[f"steps.{k}"], b - a @ x
        v2 = max((r @ r - m * sigma2) / np.trace(a.T @ a), 1e-9 * alpha2)
        tau2 = v2 / n * (n + (g**2 - 2 * g) * m) + g**2 * sigma2 / n * np.trace(w @ w.T)
        z, xi = x + g * w @ r, alpha2 + tau2
        on, off = rho * normal(z, xi), (1 - rho) * normal(z, tau2)
        x = alpha2 / xi * z * on / (off + on)
        found.append(x)
    return found


def lamp(network: LAMP, b: Array) -> list[Array]:
    a, p = network.dictionary.numpy(), state(network)
    m, n = a.shape
    x, v, found = np.zeros(n), np.zeros(m), []
    for k in range(K):
        v = b - a @ x + np.count_nonzero(x) / m * v
        threshold = max(p[f"thresholds.{k}"], 0) * np.sqrt(v @ v) / np.sqrt(m)
        x = soft(x + p["weight"].T @ v, threshold)
        found.append(x)
    return found


def na_alista(network: NAALISTA, b: Array) -> list[Array]:
    a, p = network.dictionary.numpy(), state(network)
    w, q = analytic(a), network.lstm.hidden_size
    counts = [0] * K
    if network.support_selection is not None:
        counts = [int(min(6.0 * (k + 1), 30.0) * N / 100 + 0.5) for k in range(K)]
    mean, std = network.feature_mean.numpy(), network.feature_std.numpy()
    x, (h, c), found = np.zeros(N), p["first_state"], []

    def sigmoid(z: Array) -> Array:
        return 1 / (1 + np.exp(-z))

    for k in range(K):
        r = a @ x - b
        u = w.T @ r
        features = (np.array([np.abs(r).sum(), np.abs(u).sum()]) - mean) / std
        gates = p["lstm.weight_ih"] @ features + p["lstm.bias_ih"]
        gates = gates + p["lstm.weight_hh"] @ h + p["lstm.bias_hh"]
        i, f, g, o = (gates[j * q : (j + 1) * q] for j in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        y = np.maximum(p["hidden.weight"] @ c + p["hidden.bias"], 0)
        step, threshold = np.log1p(np.exp(p["output.weight"] @ y + p["output.bias"]))
        x = soft(x - step * u, threshold, counts[k])
        found.append(x)
    return found


def hyperlista(network: HyperLISTA, b: Array) -> list[Array]:
    a, p = network.dictionary.numpy(), state(network)
    inverse, scale, w = np.linalg.pinv(a), np.ones(N), analytic(a)
    synthesis, measured = a, b
    if network.symmetric:
        values, vectors = np.linalg.eigh(a @ a.T)
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        scale = np.linalg.norm(root @ a, axis=0)
        synthesis = w = root @ a / scale
        measured, inverse = root @ b, inverse @ np.linalg.inv(root)
    x, before, found = np.zeros(N), np.zeros(N), []
    first = np.abs(inverse @ measured).sum()
    for _ in range(K):
        r = synthesis @ x - measured
        error = np.abs(inverse @ r).sum()
        fraction = min(max(p["selection_factor"] * np.log(first / error), 0), 1)
        beta = p["momentum_factor"] * np.count_nonzero(x)
        u = x - w.T @ r + beta * (x - before)
        count = int(fraction * N + 0.5)
        before, x = x, soft(u, p["threshold_factor"] * error, count)
        found.append(x / scale)
    return found


def glista(network: GLISTA, b: Array) -> list[Array]:
    a, p = network.dictionary.numpy(), state(network)
    counts = [0] * K
    if network.support_selection is not None:
        counts = [int(min(6.0 * (k + 1), 30.0) * N / 100 + 0.5) for k in range(K)]
    x, found = np.zeros(N), []
    for k in range(K):
        threshold, last = (max(p[f"thresholds.{max(j, 0)}"], 0) for j in (k, k - 1))
        size = np.abs(p[f"gain_slopes.{k}"] * x)
        shape = np.maximum(1 - size, 0) if k < 10 else 1 / (size + 0.001)
        y = (1 + p[f"gains.{k}"] * last * shape) * x
        z = soft(y - p[f"weights.{k}"].T @ (a @ y - b), threshold, counts[k])
        o = 1 + p[f"overshoots.{k}"] * threshold / (np.abs(z - x) + 0.1)
        x = o * z + (1 - o) * x
        found.append(x)
    return found


FORMULAS = {
    TISTA: tista,
    LAMP: lamp,
    NAALISTA: na_alista,
    HyperLISTA: hyperlista,
    GLISTA: glista,
}


@each
def test_formula(name: str) -> None:
    network, b = make(name), measurements()
    expected = np.stack([FORMULAS[type(network)](network, row) for row in b.numpy()], axis=1)
    assert np.abs(expected).max() < 1e3
    if not isinstance(network, TISTA):
        assert 0 < np.count_nonzero(expected) < expected.size
    result = network.unroll(b, iterates=True)
    assert result.iterates is not None
    assert not result.iterates[0].any()
    np.testing.assert_allclose(result.iterates[1:].detach(), expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(network(b).detach(), expected[-1], rtol=1e-8, atol=1e-10)


@each
def test_gradients(name: str) -> None:
    network, b = make(name, 3, 5, 11 if name.startswith("GLISTA") else 4), measurements(3, 5, 3)
    parameters = dict(network.named_parameters())

    def run(*values: Tensor) -> Tensor:
        codes: Tensor = functional_call(
            network, dict(zip(parameters, values[1:], strict=True)), values[0]
        )
        return codes

    inputs = (b, *(p.detach().clone() for p in parameters.values()))
    assert bool(network(b).any())
    tensors = tuple(t.requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TISTA", K),
        ("LAMP", M * N + K),
        ("NAALISTA", 5 * 3**2 + 21 * 3 + 2),
        ("HyperLISTA", 3),
        ("HyperLISTA plain", 3),
        ("GLISTA", K * (M * N + 4)),
    ],
)
def test_number_of_parameters(name: str, expected: int) -> None:
    assert make(name).n_parameters == expected


@each
def test_sixteen_layers_by_default(name: str) -> None:
    assert type(make(name))(dictionary(M, N)).n_layers == 16


@each
def test_first_layers_and_objective(name: str) -> None:
    network, b = make(name), measurements()
    result = network.unroll(b, iterates=True, objective_weight=0.1)
    assert result.iterates is not None
    assert result.objective is not None
    assert result.objective.shape == (K + 1, BATCH)
    for k in (1, 3, K):
        assert torch.equal(network.unroll(b, n_layers=k).codes, result.iterates[k])
        expected = lasso_objective(result.iterates[k], b, network.dictionary, 0.1)
        torch.testing.assert_close(result.objective[k], expected)
    residual = result.iterates @ network.dictionary.mT - b
    fit = network.unroll(b, objective_weight=0.0).objective
    torch.testing.assert_close(fit, 0.5 * residual.square().sum(dim=2))
    with pytest.raises(ValueError, match="objective_weight must be at least 0"):
        network.unroll(b, objective_weight=-0.1)


@each
def test_one_dimensional_measurements(name: str) -> None:
    network, b = make(name), measurements()
    torch.testing.assert_close(network(b[0]), network(b)[0])
    result = network.unroll(b[0], iterates=True, objective_weight=0.1)
    assert result.iterates is not None
    assert result.objective is not None
    assert result.iterates.shape == (K + 1, N)
    assert result.objective.shape == (K + 1,)


@each
def test_an_empty_batch_and_samples_of_zeros(name: str) -> None:
    network, b = make(name), measurements()
    assert network(b[:0]).shape == (0, N)
    b[1] = 0
    codes = network(b)
    assert bool(torch.isfinite(codes).all())
    assert not codes[1].any()


@each
def test_nan_stays_in_its_sample(name: str) -> None:
    network, b = make(name), measurements()
    expected = network(b)
    b[2, 0] = torch.nan
    codes = network(b)
    assert bool(codes[2].isnan().any())
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(codes[others], expected[others])


@each
def test_save_and_load(tmp_path, name: str) -> None:
    network, b = make(name), measurements()
    save_model(network, tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors")
    assert type(loaded) is type(network)
    assert torch.equal(loaded(b), network(b))
    assert json.dumps(loaded.config()) == json.dumps(network.config())


@pytest.mark.parametrize("name", ["TISTA", "LAMP", "GLISTA"])
def test_parameters_belong_to_layers(name: str) -> None:
    network, b = make(name), measurements()
    of_layers = [n for k in range(K) for n in network.layer_parameters(k)]
    assert sorted(of_layers + network.shared_parameters()) == sorted(state(network))
    network(b).square().sum().backward()
    last = network.get_parameter(network.layer_parameters(K - 1)[0])
    expected, last.grad = last.grad, None
    for parameter in network.parameters():
        parameter.requires_grad_(parameter is last)
    network(b).square().sum().backward()
    assert expected is not None
    assert bool(expected.any())
    torch.testing.assert_close(last.grad, expected)


@each
def test_bad_measurements(name: str) -> None:
    network, b = make(name), measurements()
    with pytest.raises(ValueError, match=r"b must have 12 columns .* \(6, 11\)"):
        network(b[:, 1:])
    with pytest.raises(TypeError, match="b has dtype"):
        network(b.float())
    with pytest.raises(ValueError, match="n_layers must be at most 12, got 13"):
        network.unroll(b, n_layers=K + 1)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", ["dependent rows", "more rows than atoms", "one atom"])
def test_unusual_dictionaries(name: str, kind: str) -> None:
    a = {
        "dependent rows": torch.cat([dictionary(4, 9), dictionary(4, 9)]),
        "more rows than atoms": dictionary(9, 4),
        "one atom": dictionary(4, 1),
    }[kind]
    network = MAKERS[name](a, 3)
    codes = 2.0 * torch.eye(a.shape[1], dtype=torch.float64)
    assert bool(torch.isfinite(network(codes @ a.T)).all())


@pytest.mark.parametrize("name", ["LAMP", "GLISTA"])
def test_a_negative_threshold_acts_as_zero(name: str) -> None:
    network, b = make(name), measurements()
    with torch.no_grad():
        network.get_parameter("thresholds.1").fill_(-0.5)
        codes = network(b)
        network.get_parameter("thresholds.1").fill_(0.0)
    assert torch.equal(network(b), codes)
    network(b).sum().backward()
