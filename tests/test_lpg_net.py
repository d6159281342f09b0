"""LPG-Net against its formula in NumPy, and its ablations, files and errors."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dictionary
from torch import Tensor

from fastunroll.analysis import lipschitz_constant
from fastunroll.data import make_sparse_problem
from fastunroll.io import load_model, save_model
from fastunroll.losses import lpg_loss
from fastunroll.nn import LPGNet

M, N, K, BATCH = 10, 16, 5, 7


def random_network(**options: object) -> LPGNet:
    """A network with every learned number moved away from its start."""
    network = LPGNet(dictionary(M, N), K, **options)
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    return network


def measurements(seed: int = 5) -> Tensor:
    return torch.randn(BATCH, M, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def transcription(network: LPGNet, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (batch, n) and steps (K, batch) by the paper's formula, one sample at a time."""
    a = network.dictionary.numpy()
    w, c, theta = (
        p.detach().numpy() for p in (network.step_weight, network.step_bias, network.threshold_raw)
    )
    low, high = network.step_range
    codes, steps = np.zeros((len(b), a.shape[1])), np.zeros((len(w), len(b)))
    for i, sample in enumerate(b):
        x = np.zeros(a.shape[1])
        for k in range(len(w)):
            gradient = a.T @ (a @ x - sample)
            s = np.sqrt(np.sum(gradient**2))
            alpha = low + (high - low) / (1 + np.exp(-(w[k] * s + c[k])))
            tau = np.log(1 + np.exp(theta[k if len(theta) > 1 else 0]))
            u = x - alpha * gradient
            x = np.sign(u) * np.maximum(np.abs(u) - tau, 0)
            steps[k, i] = alpha
        codes[i] = x
    return codes, steps


@pytest.mark.parametrize(
    "options", [{}, {"adaptive_step": False}, {"shared_threshold": True}], ids=str
)
def test_formula(options: dict[str, bool]) -> None:
    network, b = random_network(**options), measurements()
    codes, steps = transcription(network, b.numpy())
    assert 0 < np.count_nonzero(codes) < codes.size
    np.testing.assert_allclose(network(b).detach(), codes, atol=1e-12)
    np.testing.assert_allclose(network.steps(b).detach(), steps, atol=1e-12)


def test_the_step_depends_on_the_sample() -> None:
    b = measurements()
    with torch.no_grad():
        assert bool((random_network().steps(b).std(dim=1) > 1e-4).all())
        fixed = random_network(adaptive_step=False).steps(b)
    assert torch.equal(fixed, fixed[:, :1].expand_as(fixed))


def test_first_layers() -> None:
    network, b = random_network(), measurements()
    iterates = network.unroll(b, iterates=True).iterates
    assert iterates is not None
    for k in (1, 3, K):
        torch.testing.assert_close(network.unroll(b, n_layers=k).codes, iterates[k])
        torch.testing.assert_close(network.steps(b, n_layers=k), network.steps(b)[:k])


def test_one_dimensional_measurements() -> None:
    network, b = random_network(), measurements()
    torch.testing.assert_close(network(b[0]), network(b)[0])
    torch.testing.assert_close(network.steps(b[0]), network.steps(b)[:, 0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 3 * K), ({"adaptive_step": False}, 2 * K), ({"shared_threshold": True}, 2 * K + 1)],
)
def test_number_of_parameters(options: dict[str, bool], expected: int) -> None:
    assert LPGNet(dictionary(M, N), K, **options).n_parameters == expected


def test_twenty_layers_by_default() -> None:
    assert LPGNet.from_dictionary(dictionary(M, N)).n_layers == 20


def test_the_penalty_on_steps_reaches_the_rule() -> None:
    network, b = random_network(), measurements()
    result = network.unroll(b, objective_weight=0.1)
    assert result.objective is not None
    lpg_loss(
        result.codes.detach(),
        result.codes.detach(),
        result.objective.detach(),
        network.steps(b),
        network.thresholds.detach(),
        beta=1.0,
        gamma=1.0,
    ).backward()
    assert network.step_bias.grad is not None
    assert network.step_weight.grad is not None
    assert bool((network.step_bias.grad > 0).all())


def test_gradients() -> None:
    network, b = random_network(), measurements()
    assert not network.dictionary.requires_grad
    parameters = {name: p for name, p in network.named_parameters()}

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        for module_name, value in zip(parameters, values, strict=True):
            setattr(copied, module_name, value)
        result = copied.unroll(b, objective_weight=0.1)
        assert result.objective is not None
        return result.codes, result.objective

    copied = copy.deepcopy(network)
    for name in parameters:
        delattr(copied, name)
    inputs = tuple(p.detach().requires_grad_() for p in parameters.values())
    assert torch.autograd.gradcheck(run, inputs)


def test_examples_set_the_first_threshold() -> None:
    a, b = dictionary(M, N), measurements()
    small, large = (LPGNet.from_dictionary(a, scale * b) for scale in (1.0, 1000.0))
    np.testing.assert_allclose(
        large.thresholds.detach(), 1000 * small.thresholds.detach(), rtol=1e-9
    )
    thresholds = small.thresholds.detach()
    assert bool((thresholds.diff() < 0).all())
    assert float(thresholds[0] / thresholds[-1]) == pytest.approx(5)
    padded = LPGNet.from_dictionary(a, torch.cat([b, torch.zeros(100, M, dtype=b.dtype)]))
    torch.testing.assert_close(padded.thresholds, small.thresholds)
    assert bool(small(b).any(dim=1).all())


@pytest.mark.parametrize("shared_threshold", [False, True])
@pytest.mark.parametrize("range_given", [False, True])
def test_the_first_threshold_follows_the_initial_step(
    range_given: bool, shared_threshold: bool
) -> None:
    a, b = dictionary(M, N), measurements()
    step = 0.1 / float(a.square().sum(dim=0).max())
    options = {"step_range": (0.0, 2 * step)} if range_given else {"initial_step": step}
    network = LPGNet.from_dictionary(a, b, shared_threshold=shared_threshold, **options)
    torch.testing.assert_close(network.steps(b).detach(), torch.full((20, BATCH), step).double())
    first = step * float((b @ a).abs().amax(dim=1).median()) / 4
    expected = first / 5**0.5 if shared_threshold else first
    assert float(network.thresholds[0].detach()) == pytest.approx(expected)


def test_no_initial_step_is_the_default_one() -> None:
    a, b = dictionary(M, N), measurements()
    given = LPGNet.from_dictionary(a, b, initial_step=None, step_range=None)
    default = LPGNet.from_dictionary(a, b)
    unit = 1 / float(a.square().sum(dim=0).max())
    assert float(default.steps(b)[0, 0].detach()) == pytest.approx(unit)
    for name, value in default.state_dict().items():
        assert torch.equal(value, given.state_dict()[name])


def test_all_layers_can_be_trained_from_the_start() -> None:
    problem = make_sparse_problem(n_measurements=50, n_atoms=100, density=0.1, snr_db=40)
    b, codes = problem.sample(200, torch.Generator().manual_seed(0))
    network = LPGNet(problem.dictionary)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    errors = []
    for _ in range(100):
        optimiser.zero_grad()
        error = (network(b) - codes).square().sum() / codes.square().sum()
        error.backward()
        for parameter in network.parameters():
            assert parameter.grad is not None
            assert bool((parameter.grad != 0).all())
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0] < 0.5


def test_the_network_of_the_readme_learns() -> None:
    readme = Path(__file__).parent.parent / "README.md"
    _, _, rest = readme.read_text().partition("```python\n")
    code = rest.partition("```")[0].replace("range(1000)", "range(200)")
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["step"] == 199
    zero = found["codes"].square().sum(dim=1).mean()
    assert found["loss"].item() < 0.3 * zero


def test_a_start_for_atoms_that_are_nearly_equal() -> None:
    a = 1 + 0.01 * dictionary(M, 200)
    network = LPGNet.from_dictionary(a)
    assert bool(torch.isfinite(network.step_bias).all())
    assert network.step_range[0] * lipschitz_constant(a) == pytest.approx(0.5)


def test_the_constructor_keeps_to_stable_steps() -> None:
    a = dictionary(M, N)
    lipschitz = lipschitz_constant(a)
    network = LPGNet(a)
    assert np.array(network.step_range) * lipschitz == pytest.approx([0.02, 2])
    assert float(network.steps(measurements())[0, 0].detach()) == pytest.approx(1 / lipschitz)


def test_the_start_does_not_depend_on_the_scale_of_the_dictionary() -> None:
    a, b = dictionary(M, N), measurements()
    ours = LPGNet.from_dictionary(a, b, n_layers=K)(b)
    scaled = LPGNet.from_dictionary(4 * a, b, n_layers=K)(b)
    torch.testing.assert_close(4 * scaled, ours)


@pytest.mark.parametrize(
    "options", [{}, {"adaptive_step": False}, {"shared_threshold": True}], ids=str
)
def test_save_and_load(tmp_path, options: dict[str, bool]) -> None:
    network, b = random_network(**options), measurements()
    save_model(network, tmp_path / "net.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_model(tmp_path / "net.safetensors")
    assert torch.equal(loaded(b), network(b))
    assert json.dumps(loaded.config()) == json.dumps(network.config())
    assert isinstance(loaded, LPGNet)
    assert loaded.n_parameters == network.n_parameters


def test_a_long_step_warns_and_names_the_limit() -> None:
    a = dictionary(M, N)
    lipschitz = np.linalg.norm(a.numpy(), 2) ** 2
    with pytest.warns(UserWarning, match=f"L = .*{lipschitz:g}"):
        LPGNet(a, K, step_range=(0.0, 2.1 / lipschitz))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LPGNet(a, K, step_range=(0.0, 1.99 / lipschitz))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 0}, "n_layers"),
        ({"initial_threshold": 0.0}, "initial_threshold"),
        ({"step_range": (0.1, 0.1)}, r"step_range\[1\]"),
        ({"step_range": (-0.1, 0.1)}, r"step_range\[0\]"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LPGNet(dictionary(M, N), **options)


def test_bad_dictionary_and_examples() -> None:
    a = dictionary(M, N)
    broken = a.clone()
    broken[:, 3] = 0
    with pytest.raises(ValueError, match="column 3"):
        LPGNet(broken)
    with pytest.raises(ValueError, match="measurements"):
        LPGNet.from_dictionary(a, measurements()[:, 1:])
    with pytest.raises(ValueError, match="measurements"):
        LPGNet.from_dictionary(a, measurements()[:0])
    for step in (0.0, 2.1):
        with pytest.raises(ValueError, match="initial_step must be"):
            LPGNet(a / a.norm(dim=0).max(), initial_step=step)
    for bad in (0.0, float("nan")):
        with pytest.raises(ValueError, match="measurements must be finite and not all zero"):
            LPGNet.from_dictionary(a, bad * measurements())
    with pytest.raises(ValueError, match="initial_step"):
        LPGNet.from_dictionary(a, measurements(), initial_step=-1.0)
    with pytest.raises(ValueError, match=r"step_range\[0\]"):
        LPGNet.from_dictionary(a, measurements(), step_range=(-2.0, 1.0))


def test_empty_batch() -> None:
    assert random_network()(measurements()[:0]).shape == (0, N)
