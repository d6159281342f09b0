"""The equilibrium network against its equation, and its gradients against a very long unroll."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from helpers import assert_close, dictionary
from torch import Tensor

from fastunroll import soft_threshold, unrolled_prox_gradient
from fastunroll.analysis import analytic_weight
from fastunroll.io import load_model, save_model
from fastunroll.nn import EquilibriumNetwork
from fastunroll.nn.equilibrium import solve_on_support
from fastunroll.nn.fixed_point import solve_fixed_point
from fastunroll.solvers import duality_gap

M, N, BATCH = 12, 20, 7
SOLVERS = ("anderson", "plain")


def measurements(dtype: torch.dtype = torch.float64) -> Tensor:
    """Samples with a few non-zeros, one that is zero among them."""
    g = torch.Generator().manual_seed(5)
    codes = torch.randn(BATCH, N, dtype=torch.float64, generator=g)
    codes = codes * (torch.rand(BATCH, N, generator=g) < 0.15)
    codes[2] = 0
    return (codes @ dictionary(M, N).mT).to(dtype)


def network(**options: object) -> EquilibriumNetwork:
    given = {"n_layers": 20000, "tolerance": 1e-13, **options}
    return EquilibriumNetwork(dictionary(M, N), **given)


def layer(net: EquilibriumNetwork, x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """f(x) of one sample."""
    a, w = net.dictionary.numpy(), net.weight.detach().numpy()
    step, threshold = float(net.step.detach()), float(net.threshold.detach())
    u = x - step * w.T @ (a @ x - b)
    return np.sign(u) * np.maximum(np.abs(u) - threshold, 0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_codes_are_a_fixed_point(solver: str) -> None:
    net, b = network(solver=solver), measurements()
    codes = net(b).detach()
    assert 0 < int((codes != 0).sum()) < codes.numel() // 2
    for x, sample in zip(codes.numpy(), b.numpy(), strict=True):
        np.testing.assert_allclose(layer(net, x, sample), x, atol=1e-11)


@pytest.mark.parametrize("solver", SOLVERS)
def test_with_the_dictionary_as_weight_it_solves_the_lasso(solver: str) -> None:
    a, b = dictionary(M, N), measurements()
    net = network(weight=a, solver=solver)
    lam = float((net.threshold / net.step).detach())
    assert lam == pytest.approx(0.1, rel=2e-3)
    assert float(duality_gap(net(b).detach(), b, a, lam).max()) < 1e-10


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("analytic", [True, False], ids=["analytic", "dictionary"])
def test_implicit_gradients_are_those_of_a_very_long_unroll(solver: str, analytic: bool) -> None:
    a = dictionary(M, N)
    w = analytic_weight(a) if analytic else a
    net = network(weight=w, learned_weight=True, solver=solver)
    g = torch.Generator().manual_seed(1)
    direction = torch.randn(BATCH, N, dtype=torch.float64, generator=g)

    b = measurements().requires_grad_()
    (net(b) * direction).sum().backward()
    inputs = [t.detach().requires_grad_() for t in (b, net.weight, net.step, net.threshold)]
    long = unrolled_prox_gradient(
        inputs[0], a, inputs[1], step=inputs[2], threshold=inputs[3], n_layers=10000
    )
    (long.codes * direction).sum().backward()
    for name, ours, exact in zip(
        ("b", "weight", "step", "threshold"),
        (b, net.weight, net.step, net.threshold),
        inputs,
        strict=True,
    ):
        assert ours.grad is not None
        assert exact.grad is not None
        assert_close(ours.grad, exact.grad, 1e-9, name)


def test_gradcheck() -> None:
    net = network(learned_weight=True, tolerance=1e-12)
    b = measurements()[:3]
    parameters = dict(net.named_parameters())

    def run(b: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        for name, value in zip(parameters, values, strict=True):
            setattr(copied, name, value)
        result = copied.unroll(b, objective_weight=0.2)
        assert result.objective is not None
        return result.codes, result.objective

    copied = copy.deepcopy(net)
    for name in parameters:
        delattr(copied, name)
    inputs = [t.detach().clone().requires_grad_() for t in (b, *parameters.values())]
    assert torch.autograd.gradcheck(run, inputs, eps=1e-5, atol=1e-4, fast_mode=True)


def test_the_jacobian_free_gradient_is_that_of_one_layer() -> None:
    net, b = network(gradient="jfb", learned_weight=True), measurements()
    codes = net(b)
    codes.square().sum().backward()
    w, step, threshold = (
        p.detach().clone().requires_grad_() for p in (net.weight, net.step, net.threshold)
    )
    x = codes.detach()
    u = x - step * (x @ net.dictionary.mT - b) @ w
    soft_threshold(u, threshold).square().sum().backward()
    for name, ours, exact in (
        ("weight", net.weight, w),
        ("step", net.step, step),
        ("threshold", net.threshold, threshold),
    ):
        assert ours.grad is not None
        assert exact.grad is not None
        assert_close(ours.grad, exact.grad, 1e-9, name)
    exact_net = network(learned_weight=True)
    exact_net(b).square().sum().backward()
    assert exact_net.weight.grad is not None
    cosine = torch.cosine_similarity(exact_net.weight.grad.flatten(), w.grad.flatten(), dim=0)
    assert 0.2 < float(cosine) < 0.999


def test_supports_of_different_sizes_are_solved_together() -> None:
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(N, N, dtype=torch.float64, generator=g)
    support = torch.rand(BATCH, N, generator=g) < torch.linspace(0, 1, BATCH)[:, None]
    right = torch.randn(BATCH, N, dtype=torch.float64, generator=g)
    solved = solve_on_support(matrix, support, right).numpy()
    assert sorted({int(s) for s in support.sum(dim=1)})[0] == 0
    for s, v, w in zip(support.numpy(), right.numpy(), solved, strict=True):
        expected = np.zeros(N)
        expected[s] = np.linalg.solve(matrix.numpy()[np.ix_(s, s)], v[s])
        np.testing.assert_allclose(w, expected, atol=1e-10)


def test_a_singular_system_leaves_the_gradient_as_it_is() -> None:
    matrix = torch.ones(3, 3, dtype=torch.float64)
    support = torch.tensor([[True, True, False], [False, True, False]])
    right = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    solved = solve_on_support(matrix, support, right)
    torch.testing.assert_close(
        solved, torch.tensor([[1.0, 2.0, 0.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    )


@pytest.mark.parametrize("samples", [slice(None), slice(2)], ids=["some", "all"])
def test_more_non_zeros_than_measurements_give_a_finite_gradient(samples: slice) -> None:
    net, b = network(n_layers=50), measurements()[samples]
    with torch.no_grad():
        net.threshold.zero_()
    codes = net(b)
    counts = (codes != 0).sum(dim=1)
    assert int(counts.max()) > M
    assert bool((counts > M).all()) == (len(b) < BATCH)
    codes.square().sum().backward()
    assert net.step.grad is not None
    assert bool(torch.isfinite(net.step.grad))


def test_samples_do_not_depend_on_their_batch() -> None:
    net, b = network(), measurements()
    every = net.solve(b)
    for i in range(BATCH):
        alone = net.solve(b[i : i + 1])
        torch.testing.assert_close(alone.codes[0], every.codes[i], rtol=1e-10, atol=1e-11)
        assert abs(int(alone.n_iterations[0]) - int(every.n_iterations[i])) <= 2


def test_anderson_needs_fewer_iterations() -> None:
    b = measurements()
    counts = [network(solver=solver).solve(b).n_iterations.sum() for solver in SOLVERS]
    assert int(counts[0]) < int(counts[1]) / 2


def test_stop_rule() -> None:
    net, b = network(tolerance=1e-3, solver="plain"), measurements()
    loose = net.solve(b)
    assert int(loose.n_iterations[2]) == 1  # b = 0
    size = loose.codes.norm(dim=1)
    assert bool((loose.residual <= 1e-3 * size).all())
    assert int(loose.n_iterations.max()) < int(network(solver="plain").solve(b).n_iterations.max())
    assert net.solve(b, n_layers=3).n_iterations.max() == 3
    a, w = net.dictionary, net.weight.detach()
    three = unrolled_prox_gradient(
        b, a, w, step=net.step.detach(), threshold=net.threshold.detach(), n_layers=3
    )
    torch.testing.assert_close(net.solve(b, n_layers=3).codes, three.codes, atol=1e-12, rtol=0)


def test_a_bad_extrapolation_is_replaced_by_the_plain_iterate() -> None:
    calls = []

    def trap(x: Tensor, rows: Tensor) -> Tensor:
        value = torch.where((x - 0.5).abs() < 1e-3, x + 100, 0.99 * x + 0.005)
        calls.append((float(x), float(value)))
        return value

    start = torch.full((1, 1), 0.4, dtype=torch.float64)
    solve_fixed_point(trap, start, memory=5, max_iterations=3, tolerance=0.0)
    assert len(calls) == 4
    assert calls[2][0] == pytest.approx(0.5, abs=1e-3)
    assert calls[3][0] == calls[1][1]


def test_anderson_finds_the_fixed_points_of_many_samples() -> None:
    a = dictionary(M, N)
    g = torch.Generator().manual_seed(1)
    codes = torch.randn(600, N, dtype=torch.float64, generator=g)
    b = (codes * (torch.rand(600, N, generator=g) < 0.15)) @ a.mT
    for weight in (None, a):
        nets = [
            EquilibriumNetwork(a, 1500, weight=weight, solver=solver, tolerance=1e-7)
            for solver in SOLVERS
        ]
        ours, plain = (net.solve(b) for net in nets)
        error = (ours.codes - plain.codes).norm(dim=1) / plain.codes.norm(dim=1).clamp(min=1e-3)
        assert float(error[plain.n_iterations < 1500].max()) < 0.01
        assert float(ours.n_iterations.sum()) < 0.5 * float(plain.n_iterations.sum())


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_that_is_not_finite_stays_alone(solver: str) -> None:
    net, b = network(solver=solver), measurements()
    expected = net(b).detach()
    b[3, 0] = torch.nan
    codes = net(b).detach()
    assert bool(codes[3].isnan().any())
    others = [i for i in range(BATCH) if i != 3]
    torch.testing.assert_close(codes[others], expected[others], rtol=1e-9, atol=1e-10)


def test_results() -> None:
    net, b = network(), measurements()
    result = net.unroll(b, objective_weight=0.2, iterates=True)
    codes = net(b)
    assert result.iterates is not None
    assert result.objective is not None
    assert torch.equal(result.iterates, torch.stack((torch.zeros_like(codes), codes)))
    residual = codes @ net.dictionary.mT - b
    value = 0.5 * residual.square().sum(dim=1) + 0.2 * codes.abs().sum(dim=1)
    torch.testing.assert_close(result.objective[1], value)
    torch.testing.assert_close(result.objective[0], 0.5 * b.square().sum(dim=1))
    flat = net.unroll(b[0], objective_weight=0.2, iterates=True)
    torch.testing.assert_close(flat.codes, codes[0])
    assert flat.objective is not None
    assert flat.iterates is not None
    assert flat.objective.shape == (2,)
    assert flat.iterates.shape == (2, N)
    assert net(b[:0]).shape == (0, N)


def test_training_lowers_the_error() -> None:
    g = torch.Generator().manual_seed(5)
    target = torch.randn(64, N, dtype=torch.float64, generator=g)
    target = target * (torch.rand(64, N, generator=g) < 0.1)
    b = target @ dictionary(M, N).mT
    for gradient in ("implicit", "jfb"):
        net = network(gradient=gradient, tolerance=1e-5, n_layers=300)
        optimizer = torch.optim.Adam([net.threshold], 2e-3)
        losses = []
        for _ in range(10):
            loss = (net(b) - target).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0], (gradient, losses)


@pytest.mark.parametrize(("learned", "expected"), [(False, 2), (True, M * N + 2)])
def test_number_of_parameters(learned: bool, expected: int) -> None:
    assert network(learned_weight=learned).n_parameters == expected


@pytest.mark.parametrize("learned", [False, True])
def test_save_and_load(tmp_path, learned: bool) -> None:
    net = network(learned_weight=learned, gradient="jfb", solver="plain")
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.9)
    save_model(net, tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors")
    assert isinstance(loaded, EquilibriumNetwork)
    assert torch.equal(loaded(measurements()), net(measurements()))
    assert json.dumps(loaded.config()) == json.dumps(net.config())
    assert loaded.n_parameters == net.n_parameters


def test_float32() -> None:
    net = EquilibriumNetwork(dictionary(M, N, torch.float32))
    codes = net(measurements(torch.float32))
    torch.testing.assert_close(codes.double(), network()(measurements()), rtol=1e-3, atol=1e-3)
    codes.sum().backward()


def test_a_threshold_below_zero_acts_as_zero() -> None:
    net, zero = network(n_layers=30), network(n_layers=30)
    with torch.no_grad():
        net.threshold.fill_(-1.0)
        zero.threshold.zero_()
    assert torch.equal(net(measurements()), zero(measurements()))


def test_one_atom_and_more_measurements_than_atoms() -> None:
    a = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    net = EquilibriumNetwork(a, weight=a)
    b = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    lam = float((net.threshold / net.step).detach())
    torch.testing.assert_close(net(b), torch.tensor([[1 - lam / 25]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 0}, "n_layers"),
        ({"lam": 0.0}, "lam"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"solver": "newton"}, "solver must be one of anderson, plain"),
        ({"gradient": "none"}, "gradient must be one of implicit, jfb"),
        ({"weight": dictionary(N, M)}, "weight"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_bad_calls() -> None:
    net = network()
    with pytest.raises(ValueError, match="measurements must have 12 columns"):
        net(measurements()[:, 1:])
    with pytest.raises(TypeError, match="measurements has dtype"):
        net(measurements().float())
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(net(measurements()).sum(), net.step, create_graph=True)
