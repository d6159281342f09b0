"""Layers of the LISTA family: frozen ones, negative thresholds, what inference keeps, bad input."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dictionary
from lista_cases import (
    BATCH,
    CASES,
    MODELS,
    SS,
    Case,
    K,
    M,
    N,
    build,
    measurements,
    random_network,
    transcription,
)
from torch import Tensor

from fastunroll.nn import (
    ALISTA,
    LIHT,
    LIHTCP,
    LISTA,
    LISTACP,
    StepLISTA,
    SupportSelection,
    TiLISTA,
)
from fastunroll.nn import prox_gradient as module
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.prox_gradient import ProxGradientNetwork
from fastunroll.nn.thresholds import LEAST_STEP, at_least_zero

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_model = pytest.mark.parametrize("model", MODELS)


@every_case
def test_every_parameter_belongs_to_a_layer_or_to_all(case: Case) -> None:
    network = build(case)
    of_layers = [network.layer_parameters(k) for k in range(K)]
    assert all(len(names) == len(of_layers[0]) > 0 for names in of_layers)
    names = sum(of_layers, network.shared_parameters())
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    assert all(name.endswith(".2") for name in of_layers[2])
    expected = {
        "weight": case.model is TiLISTA or "shared_input" in case.options,
        "gram": "tied" in case.options,
    }
    assert network.shared_parameters() == [name for name, shared in expected.items() if shared]


def freeze(network: LayeredNetwork, n_layers: int) -> None:
    """Let only the layers from ``n_layers`` on learn, and nothing that all layers share."""
    learning = {name for k in range(n_layers, K) for name in network.layer_parameters(k)}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learning)


def loss(network: LayeredNetwork, b: Tensor) -> Tensor:
    result = network.unroll(b, iterates=True, objective_weight=0.1)
    assert result.iterates is not None
    assert result.objective is not None
    return result.iterates.pow(3).sum() + result.objective.sin().sum()


@every_case
@pytest.mark.parametrize("n_frozen", [1, K - 1])
def test_frozen_layers_change_no_gradient(case: Case, n_frozen: int) -> None:
    network, b = random_network(case), measurements()
    full = copy.deepcopy(network)
    freeze(network, n_frozen)
    runs: list[tuple[range, bool]] = []
    plain_run = network._run

    def run(b: Tensor, layers: range, *rest: Any) -> Any:
        runs.append((layers, torch.is_grad_enabled()))
        return plain_run(b, layers, *rest)

    network._run = run  # type: ignore[method-assign]
    ours, expected = loss(network, b), loss(full, b)
    assert runs == [(range(n_frozen), False), (range(n_frozen, K), True)]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    ours.backward()
    expected.backward()
    for (name, p), q in zip(network.named_parameters(), full.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)
            assert case.model is LIHT or name.startswith("thresholds") or bool(q.grad.any())
        else:
            assert p.grad is None


@pytest.mark.parametrize("which", ["measurements", "shared", "nothing"])
def test_layers_are_not_frozen_where_a_gradient_passes_them(which: str) -> None:
    network, b = random_network(Case(TiLISTA, {}, 0)), measurements()
    full, c = copy.deepcopy(network), b.clone().requires_grad_()
    freeze(network, K - 1)
    if which == "measurements":
        b.requires_grad_()
    elif which == "shared":
        network.weight.requires_grad_()
    else:
        freeze(network, K)
        assert not loss(network, b).requires_grad
        return
    loss(network, b).backward()
    loss(full, c).backward()
    ours, expected = (b, c) if which == "measurements" else (network.weight, full.weight)
    torch.testing.assert_close(ours.grad, expected.grad)


# --- Thresholds turned negative by training


@pytest.mark.parametrize("case", [c for c in CASES if c.model is not StepLISTA], ids=str)
def test_a_negative_threshold_acts_as_zero(case: Case) -> None:
    network, b = random_network(case), measurements()
    with torch.no_grad():
        network.thresholds[1].fill_(-0.3)
    expected = transcription(network, b.numpy())
    np.testing.assert_allclose(network(b).detach(), expected[-1], atol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(network(b), expected[-1], atol=1e-12)


def test_a_negative_threshold_can_only_rise() -> None:
    threshold = torch.tensor([-1.0, -1.0, 0.0, 0.0, 2.0, 2.0], requires_grad=True)
    bounded = at_least_zero(threshold)
    assert bounded.tolist() == [0.0, 0.0, 0.0, 0.0, 2.0, 2.0]
    bounded.backward(torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, -3.0]))
    assert threshold.grad is not None
    assert threshold.grad.tolist() == [0.0, -3.0, 0.0, -3.0, 3.0, -3.0]


def test_training_brings_a_negative_threshold_back() -> None:
    network = ALISTA(dictionary(M, N), 1)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, N, dtype=torch.float64, generator=g)
    x *= torch.rand(x.shape, generator=g) < 0.1
    with torch.no_grad():
        network.thresholds[0].fill_(-0.05)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (network(x @ network.dictionary.T) - x).square().sum().backward()
        optimizer.step()
    assert network.thresholds[0].item() > 0.05


@pytest.mark.parametrize("model", [ALISTA, TiLISTA, StepLISTA])
def test_a_step_that_is_not_positive_acts_as_the_least(model: type[ProxGradientNetwork]) -> None:
    network, b = model(dictionary(M, N), K), measurements()
    with torch.no_grad():
        network.steps[2].fill_(LEAST_STEP)
        expected = network(b)
        network.steps[2].fill_(-0.1)
        assert torch.equal(network(b), expected)


# --- What inference keeps


@every_case
def test_inference_sees_every_change(case: Case) -> None:
    network, b = random_network(case), measurements()
    for parameter in (None, *network.parameters()):
        with torch.inference_mode():
            if parameter is not None:
                # Numbers are seen even where PyTorch does not count the change.
                (parameter.data if parameter.dim() == 0 else parameter).mul_(0.9)
            expected = transcription(network, b.numpy())[-1]
            for _ in range(3):
                np.testing.assert_allclose(network(b), expected, atol=1e-12)
                np.testing.assert_allclose(network(b[1]), expected[1], atol=1e-12)


@pytest.mark.parametrize("model", [LISTACP, TiLISTA, ALISTA])
def test_layerwise_training_prepares_frozen_layers_once(
    model: type[ProxGradientNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, b = model(dictionary(M, N), K), measurements()
    prepared: list[object] = []

    def counted(*arguments: Any) -> Any:
        prepared.append(arguments)
        return prepare(*arguments)

    prepare = module.prepare
    monkeypatch.setattr(module, "prepare", counted)
    freeze(network, 2)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad])
    n_validations = 4
    for _ in range(n_validations):
        for _ in range(3):
            optimizer.zero_grad()
            network.unroll(b, n_layers=3).codes.square().sum().backward()
            optimizer.step()
        with torch.no_grad():
            network.unroll(b, n_layers=3)
    assert len(prepared) == (1 + n_validations if model is LISTACP else 1)


# --- Edges and bad input


@every_model
@pytest.mark.parametrize(("m", "n"), [(8, 5), (3, 1), (1, 4), (1, 1)])
def test_small_and_tall_dictionaries(model: type[ProxGradientNetwork], m: int, n: int) -> None:
    network = model(dictionary(m, n), 3)
    b = torch.randn(2, m, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(
        network(b).detach(), transcription(network, b.numpy())[-1], atol=1e-12
    )
    network(b).square().sum().backward()


@every_model
def test_rank_deficient_dictionary(model: type[ProxGradientNetwork]) -> None:
    a = dictionary(M, N)
    a[-1] = a[0]
    network = model(a, 3)
    b = measurements()
    expected = transcription(network, b.numpy())[-1]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(network(b).detach(), expected, atol=1e-12)


@every_model
def test_bad_dictionary_and_layers(model: type[ProxGradientNetwork]) -> None:
    broken = dictionary(M, N)
    broken[:, 3] = 0
    with pytest.raises(ValueError, match=r"dictionary has .*column 3"):
        model(broken)
    with pytest.raises(TypeError, match="dictionary must be float32 or float64"):
        model(dictionary(M, N).half())
    with pytest.raises(ValueError, match="n_layers must be at least 1"):
        model(dictionary(M, N), 0)
    with pytest.raises(ValueError, match="lam must be greater than 0"):
        model(dictionary(M, N), lam=0.0)


@every_model
def test_bad_measurements(model: type[ProxGradientNetwork]) -> None:
    network = model(dictionary(M, N), K)
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            with pytest.raises(TypeError, match=r"float32 but .*float64"):
                network(measurements().float())
            with pytest.raises(ValueError, match=f"must have {M} columns"):
                network(measurements()[:, 1:])
            with pytest.raises(TypeError, match=r"b must be a torch\.Tensor"):
                network(measurements().numpy())
    for n_layers in (0, K + 1):
        with pytest.raises(ValueError, match="n_layers must be at"):
            network.unroll(measurements(), n_layers=n_layers)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prox": "cubic"}, ValueError, "prox must be"),
        ({"prox": "smooth", **SS}, ValueError, "support_selection must be None with prox 'smooth'"),
        ({"prox": "firm", "prox_shape": 2.0, **SS}, ValueError, "support_selection must be None"),
        ({"prox": "scad", "prox_shape": 3.0, **SS}, ValueError, "support_selection must be None"),
        ({"support_selection": 1.2}, TypeError, "support_selection must be a SupportSelection"),
        ({"weight": torch.ones(M, N - 1).double()}, ValueError, "weight must end in"),
        ({"weight": torch.ones(2, M, N).double()}, ValueError, "weight must have 2 axes"),
        ({"weight": torch.ones(M, N)}, TypeError, "weight has dtype"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for model in (ALISTA, TiLISTA):
        with pytest.raises(error, match=message):
            model(dictionary(M, N), **options)


@pytest.mark.parametrize("values", [(-1.0, 13.0), (1.2, -1.0), (1.2, 101.0), (float("nan"), 1.0)])
def test_bad_support_selection(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="percent"):
        SupportSelection(*values)


def test_float32() -> None:
    for case in CASES:
        network, b = random_network(case), measurements()
        expected = transcription(network, b.numpy())[-1]
        codes = network.float()(b.float())
        assert codes.dtype == torch.float32
        np.testing.assert_allclose(codes.detach(), expected, atol=2e-5)


def test_support_selection_in_a_batch_of_equal_samples() -> None:
    network = random_network(Case(LISTA, SS, 0))
    codes = network(measurements()[:1].expand(BATCH, -1))
    assert torch.equal(codes, codes[:1].expand_as(codes))


@pytest.mark.parametrize("selection", [None, SupportSelection()], ids=["plain", "selection"])
@pytest.mark.parametrize("model", [LISTA, LISTACP])
def test_takes_over_an_alista(model: type[ProxGradientNetwork], selection: Any) -> None:
    start = ALISTA(dictionary(M, N), K, support_selection=selection)
    with torch.no_grad():
        for k, (step, threshold) in enumerate(zip(start.steps, start.thresholds, strict=True)):
            step.fill_(0.9 + 0.1 * k)
            threshold.fill_(0.05 / (k + 1))
    network = model(start.dictionary, K, support_selection=selection)
    assert isinstance(network, LISTA | LISTACP)
    network.take_over(start)
    b = measurements()
    np.testing.assert_allclose(
        network(b).detach().numpy(), start(b).detach().numpy(), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("model", [LIHT, LIHTCP])
def test_a_hard_threshold_keeps_what_firm_shrinkage_keeps(model: type[LISTA | LISTACP]) -> None:
    start = ALISTA(dictionary(M, N), 1, prox="firm", prox_shape=1.5, lam=1.0)
    network = model(start.dictionary, 1)
    network.take_over(start)
    b = measurements()
    u = start.steps[0] * (b @ start.weight)
    kept = u.abs() > 1.5 * start.thresholds[0]
    assert kept.any()
    assert not kept.all()
    torch.testing.assert_close(network(b), torch.where(kept, u, 0.0))


@pytest.mark.parametrize("options", [{"tied": True}, {"shared_input": True}], ids=str)
def test_layers_that_share_matrices_take_over_no_alista(options: dict[str, bool]) -> None:
    start = ALISTA(dictionary(M, N), K)
    with pytest.raises(ValueError, match="share matrices"):
        LISTA(start.dictionary, K, **options).take_over(start)
