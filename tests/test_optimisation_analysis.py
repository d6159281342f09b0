"""Tangent kernel, Hessian norm, descent and bounds, against NumPy and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import dictionary
from torch import Tensor, nn
from torch.func import functional_call

from fastunroll.analysis.bounds import admm_bound, feed_forward_bound, lista_bound
from fastunroll.analysis.descent import gradient_descent
from fastunroll.analysis.hessian import hessian_norm, output_hessian_norm
from fastunroll.analysis.tangent_kernel import (
    learned_parameters,
    smallest_eigenvalue,
    tangent_kernel,
    tangent_kernel_bytes,
)
from fastunroll.experiments.guarantees.networks import NETWORKS, Readout, kernel_bound, make_network
from fastunroll.nn import ADMMCSNet, FeedForward, SmoothLISTA

M, N, K = 4, 6, 3


def samples(batch: int = 3, m: int = M) -> Tensor:
    return torch.randn(batch, m, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def flat_function(network: nn.Module, b: Tensor):
    """Outputs of a network as a NumPy function of all learned numbers, and these numbers."""
    parameters = learned_parameters(network)
    sizes = [p.numel() for p in parameters.values()]

    def function(w: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(w).split(sizes)
        named = {
            name: part.reshape(p.shape)
            for (name, p), part in zip(parameters.items(), parts, strict=True)
        }
        with torch.no_grad():
            return functional_call(network, named, (b,)).numpy().ravel()

    return function, torch.cat([p.flatten() for p in parameters.values()]).numpy()


def numerical_jacobian(function, w: np.ndarray, h: float = 1e-6) -> np.ndarray:
    columns = []
    for i in range(len(w)):
        step = np.zeros_like(w)
        step[i] = h
        columns.append((function(w + step) - function(w - step)) / (2 * h))
    return np.array(columns).T


# Tangent kernel


@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_is_that_of_the_numerical_jacobian(name) -> None:
    network = make_network(name, dictionary(M, N), K, seed=0)
    jacobian = numerical_jacobian(*flat_function(network, samples()))
    kernel = tangent_kernel(network, samples())
    np.testing.assert_allclose(kernel.numpy(), jacobian @ jacobian.T, atol=1e-9)
    expected = np.linalg.eigvalsh(jacobian @ jacobian.T)[0]
    assert smallest_eigenvalue(kernel) == pytest.approx(expected, rel=1e-4)


def test_kernel_of_soft_shrinkage_runs_on_the_reference() -> None:
    network = ADMMCSNet(dictionary(M, N), K, lam=0.1)
    jacobian = numerical_jacobian(*flat_function(network, samples()))
    kernel = tangent_kernel(network, samples()).numpy()
    np.testing.assert_allclose(kernel, jacobian @ jacobian.T, atol=1e-7)


def test_kernel_of_lista_in_closed_form() -> None:
    """One layer: K = (y_i . y_j) / m s'(u_i) s'(u_j) for equal outputs, 0 for others."""
    network = SmoothLISTA(dictionary(M, N), 1, seed=0)
    b = samples().numpy()
    u = b @ network.input_weights[0].detach().numpy().T / np.sqrt(M)
    slope = 1 / (1 + np.exp(1 - u)) + 1 / (1 + np.exp(1 + u))
    expected = np.einsum("ij,is,js,sr->isjr", b @ b.T / M, slope, slope, np.eye(N))
    kernel = tangent_kernel(network, samples()).numpy()
    np.testing.assert_allclose(kernel, expected.reshape(3 * N, 3 * N), atol=1e-14)


def test_a_kernel_too_large_is_refused_before_it_is_made() -> None:
    network = make_network(NETWORKS[0], dictionary(M, N), K, seed=0)
    needed = tangent_kernel_bytes(network, 3, N)
    assert needed == 8 * (2 * (3 * N) ** 2 + 3 * N * N * N)
    tangent_kernel(network, samples(), max_bytes=needed)
    with pytest.raises(MemoryError, match=r"3 samples and 6 outputs \(18 x 18\) needs"):
        tangent_kernel(network, samples(), max_bytes=needed - 1)
    many = torch.zeros(1, M, dtype=torch.float64).expand(10**9, M)
    with pytest.raises(MemoryError, match="GiB, more than max_bytes = 4 GiB; use fewer samples"):
        tangent_kernel(network, many)


def test_no_samples_and_no_parameters() -> None:
    network = make_network(NETWORKS[0], dictionary(M, N), K, seed=0)
    with pytest.raises(ValueError, match="inputs must hold at least one sample"):
        tangent_kernel(network, samples(0))
    with pytest.raises(ValueError, match="at least 1"):
        gradient_descent(network, samples(0), samples(0, N), learning_rate=1.0, n_steps=1)
    with pytest.raises(ValueError, match="network must have parameters that require gradients"):
        tangent_kernel(network.requires_grad_(False), samples())


# Hessian norm


@pytest.mark.parametrize("eigenvalues", [(3.0, 1.0, 0.5), (-3.0, 1.0, 0.5), (3.0, -3.0, 1.0)])
def test_norm_of_a_known_hessian(eigenvalues) -> None:
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    matrix = torch.from_numpy(q * np.array(eigenvalues) @ q.T)
    point = {"a": torch.zeros(1, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}

    def function(parameters) -> Tensor:
        w = torch.cat((parameters["a"], parameters["b"]))
        return 0.5 * w @ matrix @ w

    assert hessian_norm(function, point, tolerance=1e-6) == pytest.approx(3.0, rel=1e-4)


def test_zero_hessian_and_bad_arguments() -> None:
    point = {"w": torch.ones(3)}
    assert hessian_norm(lambda p: p["w"].sum() + 0 * p["w"].square().sum(), point) == 0.0
    with pytest.raises(ValueError, match="function must have a finite Hessian"):
        hessian_norm(lambda p: p["w"].square().sum() * math.nan, point)
    with pytest.raises(ValueError, match="tolerance must be greater than 0"):
        hessian_norm(lambda p: p["w"].square().sum(), point, tolerance=0.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_norm_of_an_output_against_finite_differences(name) -> None:
    network = make_network(name, dictionary(M, N), K, seed=0)
    parameters = [p for p in network.parameters() if p.requires_grad]

    def gradient(w: np.ndarray) -> np.ndarray:
        torch.nn.utils.vector_to_parameters(torch.from_numpy(w), parameters)
        found = torch.autograd.grad(network(samples()[0])[2], parameters)
        return torch.cat([g.flatten() for g in found]).numpy()

    w = torch.nn.utils.parameters_to_vector(parameters).detach().numpy().copy()
    hessian = numerical_jacobian(gradient, w)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(w), parameters)
    expected = np.abs(np.linalg.eigvalsh((hessian + hessian.T) / 2)).max()
    found = output_hessian_norm(network, samples()[0], 2, tolerance=1e-6)
    assert found == pytest.approx(expected, rel=1e-3)


# Descent


def test_descent_of_a_linear_model_is_known() -> None:
    """f = W b: loss, PL ratio and Lipschitz ratio follow from least squares."""
    network = nn.Linear(M, 2, bias=False).double()
    b, x = samples(), samples(3, 2)
    start = network.weight.detach().clone()
    path = gradient_descent(network, b, x, learning_rate=0.05, n_steps=20)
    w = start.numpy().copy()
    losses, ratios = [], []
    for _ in range(21):
        residual = b.numpy() @ w.T - x.numpy()
        gradient = residual.T @ b.numpy()
        losses.append(0.5 * (residual**2).sum())
        ratios.append((gradient**2).sum() / (2 * losses[-1]))
        w -= 0.05 * gradient
    np.testing.assert_allclose(path.loss.numpy(), losses, rtol=1e-10)
    np.testing.assert_allclose(path.pl_ratio.numpy(), ratios, rtol=1e-10)
    spectrum = np.linalg.eigvalsh(b.numpy().T @ b.numpy())
    assert bool((path.lipschitz_ratio <= spectrum[-1] + 1e-9).all())
    assert bool((path.lipschitz_ratio >= -1e-12).all())
    assert len(path.lipschitz_ratio) == 20
    assert torch.equal(network.weight, start)
    kernel = tangent_kernel(network, b)
    assert bool((path.pl_ratio >= smallest_eigenvalue(kernel) - 1e-12).all())


def test_descent_that_diverges_says_so() -> None:
    network = nn.Linear(M, 2, bias=False).double()
    with pytest.raises(ValueError, match="learning_rate = 1e\\+80 is too large"):
        gradient_descent(network, samples(), samples(3, 2), learning_rate=1e80, n_steps=5)


# Bounds


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_for_every_diagonal_entry(name, seed) -> None:
    network = make_network(name, dictionary(M, N), K, seed)
    diagonal = tangent_kernel(network, 3 * samples()).diagonal().reshape(3, N).amax(dim=1)
    for i, sample in enumerate(3 * samples()):
        assert float(diagonal[i]) <= kernel_bound(network, sample[None]) * (1 + 1e-12)
    whole = kernel_bound(network, 3 * samples())
    each = [kernel_bound(network, sample[None]) for sample in 3 * samples()]
    assert whole == pytest.approx(min(each))


def test_bounds_are_the_formulas() -> None:
    lista = SmoothLISTA(dictionary(M, N), K, seed=0)
    b = samples(1)
    with torch.no_grad():
        x = [row.numpy() for row in lista.layers(b)]
    direct = (b.numpy() ** 2).sum() / M
    w2, w3 = (np.linalg.norm(w.detach().numpy(), 2) / np.sqrt(N) for w in lista.weights)
    expected = (w2 * w3) ** 2 * direct
    expected += w3**2 * (direct + (x[0] ** 2).sum() / N) + direct + (x[1] ** 2).sum() / N
    found = lista_bound(list(lista.weights), b, [torch.from_numpy(row) for row in x[:-1]])
    assert found == pytest.approx(expected / N)

    forward = FeedForward(M, 5, N, 3, seed=0, dtype=torch.float64)
    h = [row.detach().numpy() for row in forward.activations(b)]
    norms = [np.linalg.norm(w.detach().numpy(), 2) for w in forward.weights[1:]]
    v2, v3 = (norm / np.sqrt(5) for norm in norms)
    expected = (v2 * v3) ** 2 * direct + v3**2 * (h[1] ** 2).sum() / 5 + (h[2] ** 2).sum() / 5
    found = feed_forward_bound(list(forward.weights), forward.activations(b)[:-1])
    assert found == pytest.approx(expected / N)

    network = ADMMCSNet.random(dictionary(M, N), 2, seed=0)
    (first, _) = network.states(b)
    state = first.z - first.u
    (weight,) = network.weights
    w = np.linalg.norm(weight.detach().numpy(), 2) / np.sqrt(N)
    energy = float(state.detach().square().sum()) / N
    expected = (w + 1 + w) ** 2 * direct + direct + energy
    assert admm_bound([weight], 1.0, b, [state]) == pytest.approx(expected / N)


def test_readout_divides_by_the_root_of_the_width() -> None:
    lista = SmoothLISTA(dictionary(M, N), K, seed=0)
    assert torch.equal(Readout(lista)(samples()), lista(samples()) / math.sqrt(N))
