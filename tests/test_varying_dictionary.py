"""Networks whose dictionary varies, against their formulas in NumPy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, dictionary
from lista_cases import move, shrink
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastunroll.analysis import analytic_weight, generalized_coherence
from fastunroll.io import load_model, save_model
from fastunroll.nn import AdaLISTA, RobustALISTA, SupportSelection
from fastunroll.nn.robust_alista import WeightEncoder
from fastunroll.solvers import ista

M, N, K, E, BATCH = 8, 12, 4, 3, 5
SELECTION = SupportSelection(8.0, 20.0)
COUNTS = (1, 2, 2, 2)
"""8, 16, 20 and 20 % of 12 atoms are 0.96, 1.92, 2.4 and 2.4 entries."""

Network = AdaLISTA | RobustALISTA
MODELS: list[Callable[..., Network]] = [AdaLISTA, RobustALISTA]


def build(model: Callable[..., Network], **options: Any) -> Network:
    """A network with every learned number moved away from its start."""
    encoder = {"n_encoder_layers": E} if model is RobustALISTA else {}
    network = model(dictionary(M, N), K, **encoder, **options)
    move(network, 0.1, 0.05)
    return network


def dictionaries() -> Tensor:
    """One per sample, with columns of different lengths."""
    lengths = torch.linspace(0.8, 1.2, N, dtype=torch.float64)
    return torch.stack([lengths * dictionary(M, N, seed=10 + i) for i in range(BATCH)])


def measurements(seed: int = 5) -> Tensor:
    return torch.randn(BATCH, M, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def encoded(network: RobustALISTA, a: np.ndarray) -> np.ndarray:
    """Weights of one dictionary, column by column."""
    w = np.stack([atom / (atom @ atom) for atom in a.T], axis=1)
    for matrix in network.encoder.preconditioners:
        w = w - matrix.detach().numpy() @ (a @ (a.T @ w))
        for j in range(a.shape[1]):
            w[:, j] += (1 - a[:, j] @ w[:, j]) * a[:, j] / (a[:, j] @ a[:, j])
    return w


def transcription(network: Network, b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Iterates (K + 1, batch, n), one sample at a time."""
    state = {name: t.numpy() for name, t in network.state_dict().items()}
    counts = COUNTS if network.support_selection == SELECTION else (0,) * K
    iterates = np.zeros((K + 1, len(b), a.shape[-1]))
    for i, (sample, matrix) in enumerate(zip(b, a, strict=True)):
        for k in range(K):
            x, step = iterates[k, i], state[f"steps.{k}"]
            if isinstance(network, AdaLISTA):
                first = state["measurement_weight"] @ matrix
                second = state["residual_weight"] @ matrix
                u = x - step * second.T @ (second @ x) + step * first.T @ sample
            else:
                u = x - step * encoded(network, matrix).T @ (matrix @ x - sample)
            threshold = max(float(state[f"thresholds.{k}"]), 0.0)
            iterates[k + 1, i] = shrink(u, threshold, network.prox, counts[k])
    return iterates


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"support_selection": SELECTION},
        {"prox": "nonnegative"},
        {"prox": "hard"},
        {"prox": "smooth"},
    ],
    ids=["soft", "selection", "nonnegative", "hard", "smooth"],
)
@pytest.mark.parametrize("per_sample", [True, False], ids=["per sample", "shared"])
@pytest.mark.parametrize("model", MODELS)
def test_formula(model, per_sample: bool, options: dict[str, Any]) -> None:
    network, b = build(model, **options), measurements()
    a = dictionaries() if per_sample else dictionaries()[0]
    expected = transcription(network, b.numpy(), a.expand(BATCH, M, N).numpy())
    assert network.prox == "smooth" or 0 < np.count_nonzero(expected[-1]) < expected[-1].size
    view = network.with_dictionary(a)
    result = view.unroll(b, objective_weight=0.2, iterates=True)
    assert result.iterates is not None
    assert result.objective is not None
    np.testing.assert_allclose(result.iterates.detach(), expected, atol=1e-11)
    np.testing.assert_allclose(network(b, a).detach(), expected[-1], atol=1e-11)
    every = zip(expected.transpose(1, 0, 2), b.numpy(), a.expand(BATCH, M, N).numpy(), strict=True)
    for i, (codes, sample, matrix) in enumerate(every):
        values = [0.5 * np.sum((matrix @ x - sample) ** 2) + 0.2 * np.sum(np.abs(x)) for x in codes]
        np.testing.assert_allclose(result.objective[:, i].detach(), values, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(view(b), result.codes.detach())


@pytest.mark.parametrize("model", MODELS)
def test_the_default_dictionary_is_the_constructors(model) -> None:
    network, b = build(model), measurements()
    torch.testing.assert_close(network(b), network(b, dictionary(M, N)))
    torch.testing.assert_close(network(b[0]), network(b)[0])
    torch.testing.assert_close(network(b[:0], dictionaries()[:0]), network(b[:0]))


@pytest.mark.parametrize("model", MODELS)
def test_the_number_of_atoms_may_differ(model) -> None:
    network, b = build(model), measurements()
    wide = torch.stack([dictionary(M, N + 5, seed=i) for i in range(BATCH)])
    expected = transcription(network, b.numpy(), wide.numpy())
    np.testing.assert_allclose(network(b, wide).detach(), expected[-1], atol=1e-11)


@pytest.mark.parametrize(
    ("model", "expected"),
    [(AdaLISTA, 2 * M * M + 2 * K), (RobustALISTA, E * M * M + 2 * K)],
)
def test_number_of_parameters(model, expected: int) -> None:
    network = build(model)
    assert network.n_parameters == expected
    assert network.layer_parameters(2) == ["steps.2", "thresholds.2"]
    names = {name for k in range(K) for name in network.layer_parameters(k)}
    assert names | set(network.shared_parameters()) == dict(network.named_parameters()).keys()


@pytest.mark.parametrize("per_sample", [True, False], ids=["per sample", "shared"])
@pytest.mark.parametrize("model", MODELS)
def test_gradients(model, per_sample: bool) -> None:
    network, b = build(model), measurements()[:2]
    a = (dictionaries() if per_sample else dictionaries()[:1].expand(2, M, N))[:2]
    parameters = dict(network.named_parameters())

    def run(b: Tensor, a: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(_Unroll(network), _prefixed(given), (b, a))

    inputs = [b, a if per_sample else a[0], *(p.detach() for p in parameters.values())]
    inputs = [t.clone().requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert sum(t.numel() for t in inputs) > 100


class _Unroll(torch.nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        result = self.network.with_dictionary(a).unroll(b, objective_weight=0.1)
        assert result.objective is not None
        return result.codes, result.objective


def _prefixed(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": value for name, value in given.items()}


class _LargestResult(TorchDispatchMode):
    """Shapes of all results of PyTorch's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = result if isinstance(result, tuple | list) else (result,)
        self.shapes |= {tuple(t.shape) for t in found if isinstance(t, Tensor)}
        return result


def test_ada_lista_makes_no_matrix_per_sample() -> None:
    network, b, a = build(AdaLISTA), measurements(), dictionaries()
    with _LargestResult() as seen:
        network(b, a).sum().backward()
    assert (BATCH, M, N) in seen.shapes
    assert not {(BATCH, M, M), (BATCH, N, N)} & seen.shapes


@pytest.mark.parametrize("model", MODELS)
def test_a_view_trains_the_network(model) -> None:
    network, b = build(model), measurements()
    with torch.no_grad():
        before = network(b)
    view = network.with_dictionary(dictionaries())
    view(b).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        for p in view.parameters():
            p -= 0.01 * p.grad
        assert not torch.equal(network(b), before)
        torch.testing.assert_close(network(b), copy.deepcopy(network)(b))
    torch.testing.assert_close(network.dictionary, dictionary(M, N))


@pytest.mark.parametrize("model", MODELS)
def test_first_layers_may_be_frozen(model) -> None:
    network, b = build(model), measurements()
    view = network.with_dictionary(dictionaries())
    whole = view.unroll(b, iterates=True, objective_weight=0.1)
    assert whole.iterates is not None
    for k in (1, 3):
        torch.testing.assert_close(view.unroll(b, n_layers=k).codes, whole.iterates[k])
    for name, p in network.named_parameters():
        p.requires_grad_(name in network.layer_parameters(K - 1))
    part = view.unroll(b, iterates=True, objective_weight=0.1)
    for ours, theirs in zip(part, whole, strict=True):
        torch.testing.assert_close(ours, theirs)
    part.codes.sum().backward()
    assert network.steps[K - 1].grad is not None


@pytest.mark.parametrize("model", MODELS)
def test_save_and_load(tmp_path, model) -> None:
    network, b = build(model, support_selection=SELECTION), measurements()
    save_model(network, tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors")
    assert type(loaded) is type(network)
    assert torch.equal(loaded(b), network(b))
    assert json.dumps(loaded.config()) == json.dumps(network.config())


def test_ada_lista_starts_as_ista() -> None:
    a, b = dictionary(M, N), measurements()
    network = AdaLISTA(a, K, lam=0.1)
    step = float(network.steps[0].detach())
    expected = ista(b, a, 0.1, step=step, max_iterations=K, tolerance=0.0).codes
    torch.testing.assert_close(network(b).detach(), expected)


@torch.no_grad()
def test_the_encoder_starts_as_projected_gradient_descent_to_the_analytic_weights() -> None:
    a = dictionary(M, N)
    exact = analytic_weight(a)
    best = float(((exact.mT @ a) ** 2).sum() / N)
    losses = [float(WeightEncoder(a, layers).coherence_loss(a)) for layers in (1, 4, 16, 500)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(best, rel=1e-6)
    torch.testing.assert_close(WeightEncoder(a, 500)(a), exact, atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_losses_of_the_encoder() -> None:
    network, a = build(RobustALISTA), dictionaries()
    weights = [encoded(network, matrix) for matrix in a.numpy()]
    coherence = np.mean(
        [((w.T @ d) ** 2).sum() / N for w, d in zip(weights, a.numpy(), strict=True)]
    )
    assert float(network.encoder.coherence_loss(a)) == pytest.approx(coherence, rel=1e-9)
    exact = [analytic_weight(matrix).numpy() for matrix in a]
    pairs = np.mean([((w - e) ** 2).sum() / N for w, e in zip(weights, exact, strict=True)])
    assert float(network.encoder.pair_loss(a)) == pytest.approx(pairs, rel=1e-9)
    one = network.encoder.pair_loss(a[0])
    assert float(one) == pytest.approx(((weights[0] - exact[0]) ** 2).sum() / N, rel=1e-9)


@pytest.mark.parametrize("loss", ["coherence_loss", "pair_loss"])
def test_training_the_encoder_makes_it_good_for_perturbed_dictionaries(loss: str) -> None:
    a = dictionary(M, N)
    g = torch.Generator().manual_seed(0)

    def perturbed() -> Tensor:
        noise = 0.06 * torch.randn(8, M, N, dtype=torch.float64, generator=g)
        return torch.nn.functional.normalize(a + noise, dim=1)

    encoder, test = WeightEncoder(a, 8), perturbed()
    with torch.no_grad():
        before = float(encoder.pair_loss(test))
        fixed = float(
            (analytic_weight(a) - torch.stack([analytic_weight(t) for t in test]))
            .square()
            .sum(dim=1)
            .mean()
        )
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        getattr(encoder, loss)(perturbed()).backward()
        optimizer.step()
    with torch.no_grad():
        after = float(encoder.pair_loss(test))
        w = encoder(test[0])
    assert after < before / 3
    assert after < fixed
    np.testing.assert_allclose((w * test[0]).sum(dim=0), 1, rtol=1e-9)
    assert generalized_coherence(test[0], w) < 1


@pytest.mark.parametrize("model", MODELS)
def test_bad_dictionaries(model) -> None:
    network, b, a = build(model), measurements(), dictionaries()
    zero, infinite = a.clone(), a.clone()
    zero[2, :, 3] = 0
    infinite[1, 0, 0] = torch.nan
    for bad, message in [
        (zero, "dictionary has a column of zeros"),
        (infinite, "dictionary contains NaN"),
        (a[:, 1:], r"dictionary must be \(8, n_atoms\)"),
        (a[0, 0], "dictionary must have 2 or 3 axes"),
        (a[1:], r"b must have shape \(4, 8\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            network(b, bad)
    with pytest.raises(ValueError, match="b must have shape"):
        network(b[0], a)
    with pytest.raises(TypeError, match="dictionary has dtype"):
        network(b, a.float())
    with pytest.raises(TypeError, match="b has dtype"):
        network(b.float(), a)
    with pytest.raises(ValueError, match="n_encoder_layers"):
        RobustALISTA(a[0], n_encoder_layers=0)
    with pytest.raises(ValueError, match="prox must be one of soft, nonnegative, hard, smooth"):
        model(a[0], prox="firm")


@torch.no_grad()
def test_errors_stay_small_in_float32() -> None:
    for model in MODELS:
        network, b, a = build(model), measurements(), dictionaries()
        exact = network(b, a)
        single = copy.deepcopy(network).float()
        assert_close(single(b.float(), a.float()), exact, 1e-4, model.__name__)
