"""What each network whose rule depends on the sample does of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import dictionary
from torch import Tensor

from fastunroll.data import make_sparse_problem
from fastunroll.metrics import sample_nmse_db
from fastunroll.nn import GLISTA, LAMP, NAALISTA, TISTA, HyperLISTA
from fastunroll.nn.hyperlista import selected_counts, selective_soft_threshold

M, N, K = 12, 20, 4


def test_tista_knows_the_problem() -> None:
    problem = make_sparse_problem(
        M, N, density=0.3, snr_db=20, amplitude_std=2.0, dtype=torch.float64
    )
    network = TISTA.for_problem(problem)
    assert (network.density, network.amplitude_std) == (0.3, 2.0)
    clean = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    noisy = problem.sample(20_000, clean[0])
    noise = noisy.measurements - noisy.codes @ problem.dictionary.T
    assert network.noise_std == pytest.approx(float(noise.std()), rel=0.03)
    noiseless = make_sparse_problem(M, N, dtype=torch.float64)
    assert TISTA.for_problem(noiseless).noise_std == 0.0


def test_tista_counts_dependent_rows_once() -> None:
    a = dictionary(M, N)
    b = torch.randn(5, M, generator=torch.Generator().manual_seed(2)).double()
    once, twice = TISTA(a, K), TISTA(torch.cat([a, a]), K)
    torch.testing.assert_close(twice(torch.cat([b, b], dim=1)), once(b))


def test_na_alista_normalises_its_inputs() -> None:
    a, b = dictionary(M, N), torch.randn(50, M, generator=torch.Generator().manual_seed(2)).double()
    torch.manual_seed(0)
    network = NAALISTA(a, K, n_hidden=3, measurements=b)
    features = torch.stack([b.norm(1, dim=1), (b @ network.weight).norm(1, dim=1)], dim=1)
    scaled = (features - network.feature_mean) / network.feature_std
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(scaled.std(dim=0), torch.ones(2, dtype=torch.float64))
    steps, thresholds = network.adapted(b)
    assert steps.shape == thresholds.shape == (K, 50)
    assert bool((steps.std(dim=1) > 1e-3).all())


def test_hyperlista_recovers_without_training() -> None:
    problem = make_sparse_problem(125, 250, density=0.1, dtype=torch.float64)
    b, codes = problem.sample(50, torch.Generator().manual_seed(1))
    network = HyperLISTA(problem.dictionary, threshold_factor=0.015, momentum_factor=0.01)
    assert float(sample_nmse_db(network(b), codes).median()) < -60


def test_the_count_of_selected_entries() -> None:
    error = torch.tensor([[1.0], [0.5], [0.1], [2.0], [0.0], [torch.nan]])
    counts = selected_counts(torch.tensor(0.2), torch.ones(6, 1), error, 10)
    assert counts.flatten().tolist() == [0, 1, 5, 0, 10, 0]
    zeros = torch.zeros(1, 1)
    assert selected_counts(torch.tensor(0.2), zeros, zeros, 10).item() == 0
    assert selected_counts(torch.tensor(0.0), zeros + 1, zeros, 10).item() == 0


def test_selection_per_sample() -> None:
    u = torch.tensor([[3.0, -2.0, 2.0, 0.5, 0.0]]).repeat(4, 1)
    counts = torch.tensor([[0], [1], [2], [5]])
    codes = selective_soft_threshold(u, torch.full((4, 1), 1.0), counts)
    assert codes.tolist() == [
        [2.0, -1.0, 1.0, 0.0, 0.0],
        [3.0, -1.0, 1.0, 0.0, 0.0],
        [3.0, -2.0, 2.0, 0.0, 0.0],
        [3.0, -2.0, 2.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda a: TISTA(a, 0), "n_layers"),
        (lambda a: TISTA(a, density=0.0), "density must be greater than 0"),
        (lambda a: TISTA(a, density=1.0), "density must be less than 1"),
        (lambda a: TISTA(a, amplitude_std=0.0), "amplitude_std"),
        (lambda a: TISTA(a, noise_std=-1.0), "noise_std"),
        (lambda a: LAMP(a, first_threshold=-0.1), "first_threshold"),
        (lambda a: NAALISTA(a, n_hidden=0), "n_hidden"),
        (lambda a: NAALISTA(a, weight=a[1:]), "weight"),
        (lambda a: NAALISTA(a, measurements=a.T[:, 1:]), "measurements must be"),
        (lambda a: NAALISTA(a, measurements=a.T[:1]), "at least 2 examples"),
        (lambda a: NAALISTA(a, measurements=torch.ones(3, M).double()), "different norms"),
        (lambda a: HyperLISTA(a, -1), "n_layers"),
        (lambda a: HyperLISTA(a, momentum_factor=float("nan")), "momentum_factor"),
        (lambda a: GLISTA(a, lam=0.0), "lam"),
        (lambda a: GLISTA(0 * a), "column"),
    ],
)
def test_bad_options(build: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(dictionary(M, N))


def test_bad_support_selection() -> None:
    for model in (NAALISTA, GLISTA):
        with pytest.raises(TypeError, match="support_selection"):
            model(dictionary(M, N), support_selection=1.2)
