"""ADMM-CSNet, LISTA with smooth shrinkage, piecewise-linear shrinkage and their comparison."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import dictionary
from torch import Tensor

from fastunroll import use_backend
from fastunroll.functional import smooth_soft_threshold
from fastunroll.io import load_model, save_model
from fastunroll.nn import ADMMCSNet, FeedForward, PiecewiseLinear, SmoothLISTA
from fastunroll.nn.dense import stack_complex
from fastunroll.solvers import admm, lasso_objective

M, N, K, LAM, RHO = 12, 20, 9, 0.15, 0.7
VARIANTS = [
    {"shrinkage": shrinkage, "scaling": scaling, "tied": tied}
    for shrinkage in ("soft", "piecewise-linear")
    for scaling in ("standard", "ntk")
    for tied in (False, True)
]


def samples(batch: int = 6, m: int = M, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, m, dtype=torch.float64, generator=generator)


def smooth(u: np.ndarray, t: float) -> np.ndarray:
    """The formula as the paper has it, for numbers of moderate size."""
    return np.log1p(np.exp(u - t)) - np.log1p(np.exp(-u - t))


# Untrained ADMM-CSNet is ADMM


@pytest.mark.parametrize("shape", [(M, N), (N, M)], ids=["wide", "tall"])
@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(map(str, o.values())))
def test_untrained_it_is_admm_layer_by_layer(options, shape) -> None:
    a = dictionary(*shape)
    b = samples(m=shape[0])
    network = ADMMCSNet(a, K, lam=LAM, rho=RHO, **options)
    iterates = network.unroll(b, iterates=True).iterates
    assert iterates is not None
    for k in range(1, K + 1):
        classical = admm(b, a, LAM, rho=RHO, max_iterations=k, tolerance=0.0)
        assert float((iterates[k] - classical.codes).detach().abs().max()) <= 1e-10
    assert bool((iterates[1] != iterates[K]).any())


def test_singular_gram_matrix_is_no_matter_with_a_proper_rho() -> None:
    a = dictionary(M, N)
    a[:, 1] = a[:, 0]
    b = samples()
    found = ADMMCSNet(a, K, lam=LAM, rho=RHO)(b)
    expected = admm(b, a, LAM, rho=RHO, max_iterations=K, tolerance=0.0).codes
    assert float((found - expected).detach().abs().max()) <= 1e-10


def test_complex_measurements_are_those_of_the_stacked_problem() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(M, N, dtype=torch.complex128, generator=generator)
    b = torch.randn(5, M, dtype=torch.complex128, generator=generator)
    network = ADMMCSNet(a, K, lam=LAM, rho=RHO)
    # Normal equations of the complex problem in real codes, by NumPy.
    matrix, rhs = a.numpy(), b.numpy()
    inverse = np.linalg.inv((matrix.conj().T @ matrix).real + RHO * np.eye(N))
    z = u = np.zeros((5, N))
    for _ in range(K):
        x = ((rhs @ matrix.conj()).real + RHO * (z - u)) @ inverse
        z = np.sign(x + u) * np.maximum(np.abs(x + u) - LAM / RHO, 0)
        u = u + x - z
    np.testing.assert_allclose(network(b).detach().numpy(), z, atol=1e-11)
    one = network(b[0])
    assert torch.equal(one, network(b[:1])[0])
    codes = torch.from_numpy(z)
    residual = codes.to(a.dtype) @ a.mT - b
    assert torch.allclose(
        lasso_objective(codes, stack_complex(b, -1), network.dictionary, LAM),
        0.5 * residual.abs().square().sum(dim=1) + LAM * codes.abs().sum(dim=1),
    )


# Formulas


@pytest.mark.parametrize("tied", [False, True])
def test_random_network_follows_the_formula(tied) -> None:
    network = ADMMCSNet.random(dictionary(M, N), 4, threshold=0.8, tied=tied, seed=3)
    b = samples()
    first = [w.detach().numpy() for w in network.input_weights]
    second = [w.detach().numpy() for w in network.weights]
    z = u = np.zeros((len(b), N))
    for k in range(4):
        x = b.numpy() @ first[0 if tied else k].T / np.sqrt(M)
        if k:
            x = x + (z - u) @ second[0 if tied else k - 1].T / np.sqrt(N)
        z = smooth(x + u, 0.8)
        u = u + x - z
    np.testing.assert_allclose(network(b).detach().numpy(), z, rtol=1e-11)
    assert network.n_parameters == (M * N + N * N if tied else 4 * M * N + 3 * N * N)
    everything = torch.cat([w.detach().flatten() for w in network.parameters()])
    assert 0.9 < float(everything.std()) < 1.1


def test_the_step_of_the_multiplier_counts() -> None:
    network = ADMMCSNet(dictionary(M, N), 2, lam=LAM, rho=RHO)
    b = samples()
    with torch.no_grad():
        network.steps[0].fill_(0.3)
    first = network.input_weights[0].detach().numpy()
    second = network.weights[0].detach().numpy()
    x = b.numpy() @ first.T
    z = np.sign(x) * np.maximum(np.abs(x) - LAM / RHO, 0)
    u = 0.3 * (x - z)
    last = b.numpy() @ first.T + (z - u) @ second.T + u
    z = np.sign(last) * np.maximum(np.abs(last) - LAM / RHO, 0)
    np.testing.assert_allclose(network(b).detach().numpy(), z, atol=1e-12)


@pytest.mark.parametrize("shrinkage", ["soft", "smooth"])
def test_a_negative_threshold_acts_as_zero_and_can_rise(shrinkage) -> None:
    networks = [ADMMCSNet(dictionary(M, N), 3, shrinkage=shrinkage)]
    if shrinkage == "smooth":
        networks.append(SmoothLISTA(dictionary(M, N), 3, learn_threshold=True))
    for network in networks:
        codes = {}
        for value in (0.0, -0.2):
            for threshold in network.thresholds:
                threshold.detach().fill_(value)
            codes[value] = network(samples())
        assert torch.equal(codes[0.0], codes[-0.2])
        codes[-0.2].square().sum().backward()  # less with a threshold
        assert network.thresholds[-1].grad < 0


def test_smooth_lista_follows_the_formula() -> None:
    network = SmoothLISTA(dictionary(M, N), 3, threshold=0.6, learn_threshold=True, seed=2)
    b = samples()
    x = np.zeros((len(b), N))
    for k, first in enumerate(network.input_weights):
        u = b.numpy() @ first.detach().numpy().T / np.sqrt(M)
        if k:
            u = u + x @ network.weights[k - 1].detach().numpy().T / np.sqrt(N)
        x = smooth(u, 0.6)
    np.testing.assert_allclose(network(b).detach().numpy(), x, rtol=1e-11)
    assert network.n_parameters == 3 * M * N + 2 * N * N + 3
    assert bool((SmoothLISTA(dictionary(M, N), 3, seed=5)(b) != network(b)).any())


def test_feed_forward_follows_the_formula_and_has_as_many_parameters() -> None:
    lista = SmoothLISTA(dictionary(M, N), 4)
    network = FeedForward.like(lista, threshold=0.5, seed=1)
    x = samples().numpy()
    for weight in network.weights:
        x = smooth(x @ weight.detach().numpy().T / np.sqrt(weight.shape[1]), 0.5)
    np.testing.assert_allclose(network(samples()).detach().numpy(), x, rtol=1e-11)
    assert abs(network.n_parameters / lista.n_parameters - 1) < 0.03
    two = FeedForward.like(SmoothLISTA(dictionary(M, N), 2))
    assert [tuple(w.shape) for w in two.weights] == [(28, M), (N, 28)]


def test_smooth_shrinkage_is_stable_and_exactly_differentiable() -> None:
    u = torch.tensor([-1e4, -50.0, -1.0, 0.0, 1.0, 50.0, 1e4], dtype=torch.float64)
    t = torch.tensor(1.0, dtype=torch.float64)
    shrunk = smooth_soft_threshold(u, t)
    assert torch.allclose(shrunk[[0, 1, 5, 6]], torch.tensor([-9999.0, -49, 49, 9999]).double())
    assert float(shrunk[3]) == 0.0
    for values in (u, -u):
        for function in (
            smooth_soft_threshold,
            torch.func.grad(lambda x, t: smooth_soft_threshold(x, t).sum()),
        ):
            with use_backend("reference"):
                assert bool(torch.isfinite(function(values, t)).all())
    middle = torch.linspace(-6, 6, 13, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(smooth_soft_threshold, (middle, t))
    torch.autograd.gradgradcheck(smooth_soft_threshold, (middle, t))
    np.testing.assert_allclose(
        smooth_soft_threshold(middle, t).detach().numpy(), smooth(middle.detach().numpy(), 1.0)
    )


# Piecewise-linear shrinkage


def test_piecewise_linear_interpolates_and_goes_on_beyond_its_knots() -> None:
    function = PiecewiseLinear(1.0, 4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        function.values.normal_(generator=generator)
    u = torch.linspace(-2, 2, 41, dtype=torch.float64)
    knots, values = np.linspace(-2, 2, 9), function.values.detach().numpy()
    expected = np.interp(u.numpy(), knots, values)
    np.testing.assert_allclose(function(u).detach().numpy(), expected, atol=1e-14)
    outside = function(torch.tensor([-3.0, 4.0], dtype=torch.float64)).detach().numpy()
    slopes = (values[1] - values[0]) * 2, (values[-1] - values[-2]) * 2
    np.testing.assert_allclose(outside, [values[0] - slopes[0], values[-1] + 2 * slopes[1]])
    points = torch.tensor([[-2.7, -0.3, 0.26, 2.9]], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(function, (points,))
    assert bool(torch.isnan(function(torch.tensor(torch.nan))))


# Networks as users meet them


@pytest.mark.parametrize(
    "make",
    [
        lambda a: ADMMCSNet(a, 3, shrinkage="soft"),
        lambda a: ADMMCSNet(a, 3, shrinkage="smooth", tied=True),
        lambda a: ADMMCSNet(a, 3, shrinkage="piecewise-linear", scaling="ntk"),
        lambda a: ADMMCSNet.random(a, 3),
        lambda a: SmoothLISTA(a, 3, learn_threshold=True),
    ],
)
def test_saved_networks_come_back(make, tmp_path) -> None:
    network = make(dictionary(M, N))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    save_model(network, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again(samples()), network(samples()))
    assert again.n_parameters == network.n_parameters
    assert again.config() == network.config()


@pytest.mark.parametrize("options", [*VARIANTS, {"shrinkage": "smooth"}])
def test_gradients(options) -> None:
    network = ADMMCSNet(dictionary(5, 7), 3, lam=LAM, rho=RHO, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn(p.shape, dtype=p.dtype, generator=generator))
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    values = [p.detach().clone().requires_grad_() for p in network.parameters() if p.requires_grad]

    def run(*values: Tensor) -> Tensor:
        return torch.func.functional_call(
            network, dict(zip(names, values, strict=True)), (samples(2, 5),)
        )

    assert torch.autograd.gradcheck(run, values)


def test_every_parameter_belongs_to_one_layer_or_to_all() -> None:
    for network in (
        ADMMCSNet(dictionary(M, N), 3, shrinkage="piecewise-linear"),
        ADMMCSNet(dictionary(M, N), 3, tied=True),
        SmoothLISTA(dictionary(M, N), 3, learn_threshold=True),
    ):
        layers = [name for k in range(3) for name in network.layer_parameters(k)]
        names = [name for name, _ in network.named_parameters()]
        assert sorted(layers + network.shared_parameters()) == sorted(names)
        assert bool(network.shared_parameters()) == network.tied
    b = samples()
    head = network.unroll(b, n_layers=1).codes.sum()
    names = [name for name, _ in network.named_parameters()]
    grads = torch.autograd.grad(head, list(network.parameters()), allow_unused=True)
    used = {name for name, grad in zip(names, grads, strict=True) if grad is not None}
    assert used == set(network.layer_parameters(0))


def test_unroll_tells_objective_and_iterates() -> None:
    network = ADMMCSNet(dictionary(M, N), 4, lam=LAM, rho=RHO)
    b = samples()
    result = network.unroll(b, objective_weight=LAM, iterates=True)
    assert result.iterates is not None
    assert result.objective is not None
    assert torch.equal(result.iterates[-1], result.codes)
    for x, objective in zip(result.iterates, result.objective, strict=True):
        assert torch.equal(objective, lasso_objective(x, b, network.dictionary, LAM))
    with use_backend("reference"):
        assert torch.allclose(network(b), result.codes, atol=1e-13)
    assert torch.equal(copy.deepcopy(network)(b), result.codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": -0.1}, "lam must be greater than 0"),
        ({"lam": 0.0}, "lam must be greater than 0"),
        ({"rho": 0.0}, "rho must be greater than 0"),
        ({"rho": -1.0}, "rho must be greater than 0"),
        ({"rho": 1e-18}, "rho = 1e-18 is too small: A\\^T A is singular"),
        ({"shrinkage": "hard"}, "shrinkage must be one of"),
        ({"scaling": "mup"}, "scaling must be one of"),
        ({"n_layers": 0}, "n_layers must be at least 1"),
    ],
)
def test_bad_arguments(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ADMMCSNet(dictionary(M, N), **options)


def test_bad_arguments_of_the_others() -> None:
    a = dictionary(M, N)
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        SmoothLISTA(a, 3, threshold=-1.0)
    with pytest.raises(ValueError, match="threshold must be greater than 0"):
        ADMMCSNet.random(a, 3, threshold=-1.0)
    with pytest.raises(ValueError, match="threshold must be greater than 0"):
        PiecewiseLinear(-1.0)
    with pytest.raises(ValueError, match="n_pieces must be at least 2"):
        PiecewiseLinear(1.0, 1)
    with pytest.raises(ValueError, match="n_layers must be at least 2"):
        FeedForward(3, 4, 5, 1)
    network = ADMMCSNet(a, 3)
    with pytest.raises(ValueError, match="b must have 12 columns"):
        network(samples(m=M + 1))
    with pytest.raises(ValueError, match="n_layers must be at most 3"):
        network.unroll(samples(), n_layers=4)
    with pytest.raises(TypeError, match="b has dtype"):
        network(samples().float())
