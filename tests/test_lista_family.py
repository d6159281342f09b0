"""The LISTA family against its formulas in NumPy: values, gradients, counts, starts and files."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from helpers import dictionary
from lista_cases import (
    CASES,
    COUNTS,
    MODELS,
    SELECTION,
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
from torch import Tensor, nn

from fastunroll.analysis.analytic import analytic_weight
from fastunroll.io import load_model, save_model
from fastunroll.nn import (
    ALISTA,
    LIHT,
    LIHTCP,
    LISTA,
    LISTACP,
    StepLISTA,
    SupportSelection,
    TiLISTA,
    alista,
)
from fastunroll.nn.prox_gradient import ProxGradientNetwork
from fastunroll.ops import reference

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
@pytest.mark.parametrize("training", [True, False])
def test_formula(case: Case, training: bool) -> None:
    network, b = random_network(case), measurements()
    expected = transcription(network, b.numpy())
    assert all(x.any() for x in expected[1:])
    assert np.count_nonzero(expected[-1]) < expected[-1].size
    with torch.set_grad_enabled(training):
        result = network.unroll(b, iterates=True, objective_weight=0.2)
        codes = network(b)
    assert result.iterates is not None
    assert result.objective is not None
    np.testing.assert_allclose(codes.detach(), expected[-1], atol=1e-12)
    np.testing.assert_allclose(result.iterates.detach(), expected, atol=1e-12)
    residual = expected @ network.dictionary.numpy().T - b.numpy()
    objective = (residual**2).sum(-1) / 2 + 0.2 * np.abs(expected).sum(-1)
    np.testing.assert_allclose(result.objective.detach(), objective, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if "support_selection" in c.options], ids=str)
def test_support_selection_can_be_taken_off(case: Case) -> None:
    network, b = random_network(case), measurements()
    with torch.no_grad():
        selected = network(b)
        network.support_selection = None
        codes = network(b)
    np.testing.assert_allclose(codes, transcription(network, b.numpy())[-1], atol=1e-12)
    assert not np.allclose(selected, codes, atol=1e-3)


@every_case
def test_gradients(case: Case) -> None:
    network, b = random_network(case), measurements()[:3].requires_grad_()

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, b: Tensor) -> tuple[Tensor, ...]:
            result = self.network.unroll(b, objective_weight=0.1)
            assert result.objective is not None
            return result.codes, result.objective

    outputs = Outputs()
    names = [name for name, _ in outputs.named_parameters()]

    def run(b: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, values, strict=True))
        found: tuple[Tensor, ...] = torch.func.functional_call(outputs, given, (b,))
        return found

    values = [p.detach().clone().requires_grad_() for p in outputs.parameters()]
    assert torch.autograd.gradcheck(run, (b, *values), fast_mode=sum(map(Tensor.numel, values)) > N)


@every_case
def test_number_of_parameters(case: Case) -> None:
    network = build(case)
    assert network.n_parameters == case.n_parameters
    assert network.n_layers == K
    assert not network.dictionary.requires_grad


def test_sixteen_layers_by_default() -> None:
    for model in MODELS:
        assert model(dictionary(M, N)).n_layers == 16


@pytest.mark.parametrize("model", [LISTA, LISTACP, TiLISTA, StepLISTA])
def test_start_as_ista(model: type[ProxGradientNetwork]) -> None:
    a, b = dictionary(M, N), measurements()
    step = 1 / (1.001 * np.linalg.norm(a.numpy(), 2) ** 2)
    x = np.zeros((len(b), N))
    for _ in range(K):
        u = x - step * (x @ a.numpy().T - b.numpy()) @ a.numpy()
        x = np.sign(u) * np.maximum(np.abs(u) - 0.4 * step, 0)
    np.testing.assert_allclose(model(a, K)(b).detach(), x, atol=1e-12)


@pytest.mark.parametrize("model", [LIHT, LIHTCP])
def test_start_as_iterative_hard_thresholding(model: type[ProxGradientNetwork]) -> None:
    a, b = dictionary(M, N), measurements()
    step = 1 / (1.001 * np.linalg.norm(a.numpy(), 2) ** 2)
    x = np.zeros((len(b), N))
    for _ in range(K):
        u = x - step * (x @ a.numpy().T - b.numpy()) @ a.numpy()
        x = np.where(u**2 > 2 * 0.4 * step, u, 0)
    assert x.any()
    np.testing.assert_allclose(model(a, K)(b).detach(), x, atol=1e-12)


def test_start_of_alista() -> None:
    a = dictionary(M, N)
    network = ALISTA(a, K)
    assert torch.equal(network.weight, analytic_weight(a))
    assert [step.item() for step in network.steps] == [1.0] * K
    threshold = 0.4 / (1.001 * np.linalg.norm(a.numpy(), 2) ** 2)
    np.testing.assert_allclose([t.item() for t in network.thresholds], threshold)
    for model in (TiLISTA, LISTACP, LISTA):
        other = model(a, K, weight=network.weight)
        torch.testing.assert_close(other(measurements()), network(measurements()))


def test_w2_of_lista_starts_coupled() -> None:
    w1, w2 = LISTA(dictionary(M, N), K).matrices(2)
    torch.testing.assert_close(w2, torch.eye(N, dtype=torch.float64) - w1 @ dictionary(M, N))


@pytest.mark.parametrize("layer", [-1, K])
def test_a_layer_that_is_not_there_has_no_matrices(layer: int) -> None:
    for options in ({}, {"tied": True, "shared_input": True}):
        with pytest.raises(ValueError, match=f"layer must be .* less than {K}, got {layer}"):
            LISTA(dictionary(M, N), K, **options).matrices(layer)
    with pytest.raises(TypeError, match="layer must be an int, got float"):
        LISTA(dictionary(M, N), K).matrices(1.0)  # type: ignore[arg-type]


def test_counts_of_support_selection() -> None:
    assert SELECTION.counts(N, K) == COUNTS
    usual = SupportSelection().counts(500, 16)
    assert usual == (6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 65, 65, 65, 65, 65, 65)
    assert SupportSelection(0.5, 100.0).counts(100, 4) == (1, 1, 2, 2)  # 0.5, 1, 1.5, 2
    assert SupportSelection(0.0, 0.0).counts(500, 2) == (0, 0)
    assert SupportSelection(100.0, 100.0).counts(3, 2) == (3, 3)


@every_case
def test_first_layers_and_one_dimension(case: Case) -> None:
    network, b = random_network(case), measurements()
    expected = transcription(network, b.numpy())
    for k in range(1, K + 1):
        np.testing.assert_allclose(
            network.unroll(b, n_layers=k).codes.detach(), expected[k], atol=1e-12
        )
    np.testing.assert_allclose(network(b[0]).detach(), expected[-1, 0], atol=1e-12)
    assert network(b[:0]).shape == (0, N)


@every_case
def test_save_and_load(case: Case, tmp_path) -> None:
    network, b = random_network(case), measurements()
    save_model(network, tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors")
    assert type(loaded) is case.model
    assert torch.equal(loaded(b), network(b))
    assert json.dumps(loaded.config()) == json.dumps(network.config())
    assert loaded.n_parameters == network.n_parameters


def test_loading_alista_computes_no_weight(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ALISTA(dictionary(M, N), K)
    save_model(network, tmp_path / "net.safetensors")
    monkeypatch.delattr(alista, "analytic_weight")
    assert torch.equal(load_model(tmp_path / "net.safetensors").weight, network.weight)


@every_case
def test_training_takes_the_native_kernels(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the reference was called")

    network = random_network(case)
    monkeypatch.setattr(reference, "unrolled", refuse)
    monkeypatch.setattr(reference, "unrolled_backward", refuse)
    monkeypatch.setattr(reference, "multiply", refuse)
    network(measurements()).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@pytest.mark.parametrize("case", [Case(LISTA, SS, 0), Case(ALISTA, SS, 0)], ids=str)
def test_compiles_without_a_break(case: Case) -> None:
    network, b = random_network(case), measurements()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(b), network(b))


@every_case
def test_copies_are_independent(case: Case) -> None:
    network, b = random_network(case), measurements()
    with torch.no_grad():
        before = network(b)
        for p in (copied := copy.deepcopy(network)).parameters():
            p.mul_(0.9)
        assert torch.equal(network(b), before)
        assert not torch.equal(copied(b), before)
